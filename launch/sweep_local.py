"""A sweep's points on this machine, one after another, each a process of its own: one that fails does not end the others."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from configs import atomic
from launch.local import die_with_parent
from launch.sweep import REFUSED_FILE, Outcome, Sweep, forget_refusal, last_words, outcome
from launch.sweep_grid import Point

EXIT_DONE, EXIT_FAILED, EXIT_CONTINUE = 0, 1, 75
OUTPUT_FILE = "train.out"
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_POLL_S = 0.1


class Runner:
    """Runs one point at a time with `command`; after a signal the point saves, and no other begins."""

    capacity = 1

    def __init__(self, sweep: Sweep, command: Sequence[str]) -> None:
        self.stopping = False
        self._sweep = sweep
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._known: list[int] = []
        self._offset = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hands signals on to the point that runs, and waits at the end until that one has saved."""

        def forward(number: int, frame: FrameType | None) -> None:
            self.stopping = True
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

        before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            yield
            if self._process is not None:
                self._process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, point: Point) -> None:
        """Starts a point's run, or takes it up where it stopped."""
        run = self._sweep.run_of(point.number)
        forget_refusal(run)
        self._known = [attempt.number for attempt in run.attempts()]
        output = run.path / OUTPUT_FILE
        with output.open("ab") as said:
            self._offset = said.tell()
            self._process = subprocess.Popen(
                [*self._command, "train", str(run.path / "launch.yaml"), "--into", str(run.path)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C reaches it once: through us
                preexec_fn=die_with_parent,  # noqa: PLW1509  (no thread is started before this)
            )

    def is_over(self, point: Point) -> bool:
        """True when the point's process has ended; the reason of one that never came to an attempt is written down."""
        if self._process is None:
            return True
        if self._process.poll() is None:
            return False
        code, self._process = self._process.returncode, None
        run = self._sweep.run_of(point.number)
        if code != 0 and not self.stopping and not any(attempt.number not in self._known for attempt in run.attempts()):
            cause = last_words(run.path / OUTPUT_FILE, self._offset) or f"exit code {code}; see {OUTPUT_FILE} in its folder"
            atomic.write_json(run.path / REFUSED_FILE, {"code": code, "cause": cause})
        return True


def run_points(sweep: Sweep, points: Sequence[Point], runner: Runner, tell: Callable[[Outcome, float], None]) -> int:
    """Runs `points` one after another; returns 0, 1 when one failed, 75 when it was asked to stop.

    Args:
        sweep: where their folders are.
        points: those to run; what is done already is not run again.
        runner: starts them.
        tell: takes each outcome and its seconds.
    """
    codes = {EXIT_DONE}
    with runner.listening():
        for point in points:
            if outcome(sweep, point).state == "done":
                continue
            began = time.monotonic()
            runner.start(point)
            while not runner.is_over(point):
                time.sleep(_POLL_S)
            ended = outcome(sweep, point)
            tell(ended, time.monotonic() - began)
            codes.add(EXIT_DONE if ended.state == "done" else EXIT_FAILED)
            if runner.stopping:
                return EXIT_CONTINUE
    return max(codes)
