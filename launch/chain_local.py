"""A chain's stages on this machine, one after another, each a process of its own; the first that fails ends the chain."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from configs.chain import EVALUATE
from configs.errors import CheckpointError
from configs.runfolder import RunFolder, state_of
from launch.chain import ChainFolder, StageState, begin, end, is_done
from launch.local import die_with_parent
from launch.sweep import last_words

EXIT_DONE, EXIT_FAILED, EXIT_CONTINUE = 0, 1, 75
# What a stage writes to stderr, beside the terminal; its last error is the chain's.
SAID_FILE = "stage.err"
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def stage_command(chain: ChainFolder, stage: StageState, words: Sequence[str]) -> list[str]:
    """Returns the verb that a stage is and what it is given.

    Args:
        chain: its folder.
        stage: which one.
        words: what evaluate or release were told.
    """
    run = chain.path / stage.run
    if stage.kind == "train":
        return ["train", str(run / "launch.yaml"), "--into", str(run)]
    return ["eval" if stage.kind == EVALUATE else "export", str(run), *words]


class Runner:
    """Runs one stage at a time with `command`; after a signal the stage saves, and no other begins."""

    def __init__(self, chain: ChainFolder, command: Sequence[str]) -> None:
        self.stopping = False
        self._signal = 0
        self._chain = chain
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hands signals on to the stage that runs."""

        def forward(number: int, frame: FrameType | None) -> None:
            self.stopping, self._signal = True, number
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

        before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, stage: StageState, words: Sequence[str]) -> tuple[int, str]:
        """Runs a stage to its end; returns its exit code and the last error that it told."""
        said = self._chain.path / stage.run / SAID_FILE
        sys.stdout.flush()
        process = subprocess.Popen(
            [*self._command, *stage_command(self._chain, stage, words)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C reaches it once: through us
            preexec_fn=die_with_parent,  # noqa: PLW1509  (no thread runs now: the former stage's has ended)
        )
        self._process = process
        if self.stopping:  # the signal came while it was being started
            process.send_signal(self._signal)
        assert process.stderr is not None
        echo = threading.Thread(target=_copy, args=(process.stderr, said), daemon=True)
        echo.start()
        code = process.wait()
        echo.join(timeout=5.0)
        return code, last_words(said)


def _copy(lines: IO[bytes], path: Path) -> None:
    with path.open("wb") as file, lines:
        for line in lines:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
            file.write(line)
            file.flush()


def run_stages(
    chain: ChainFolder,
    words: dict[str, list[str]],
    runner: Runner,
    tell: Callable[[StageState, bool], None],
) -> int:
    """Runs the stages that are not done; returns 0, the exit code of one that failed, or 75 when it was asked to stop.

    Args:
        chain: its folder, with chain.json.
        words: what evaluate and release are told, by stage.
        runner: starts them.
        tell: takes each stage before it runs, and whether it was done before.
    """
    with runner.listening():
        for stage in chain.info().stages:
            if is_done(chain, stage):
                tell(stage, True)
                if stage.state != "done":  # it ended, and the chain did not live to see it
                    end(chain, stage.name, "done")
                continue
            if runner.stopping:
                return EXIT_CONTINUE
            tell(stage, False)
            code = _run_stage(chain, stage, words.get(stage.name, []), runner)
            if code != EXIT_DONE:
                return code
    return EXIT_DONE


def _run_stage(chain: ChainFolder, stage: StageState, words: Sequence[str], runner: Runner) -> int:
    try:
        begin(chain, stage.name)
    except CheckpointError as error:
        end(chain, stage.name, "failed", str(error).splitlines()[0])
        raise
    code, said = runner.run(stage, words)
    run = RunFolder(chain.path / stage.run)
    if code == EXIT_DONE and (stage.kind != "train" or state_of(run.path).state == "done"):
        end(chain, stage.name, "done")
        return EXIT_DONE
    if code in (EXIT_DONE, EXIT_CONTINUE) or runner.stopping:
        end(chain, stage.name, "stopped", "saved; the same command continues")
        return EXIT_CONTINUE
    status = state_of(run.path)
    ended = f"exit code {code}" if code > 0 else f"it was killed by {signal.Signals(-code).name}"
    cause = said or (status.cause.splitlines()[0] if stage.kind == "train" and status.cause else ended)
    end(chain, stage.name, "failed", cause)
    return code if code > 0 else EXIT_FAILED
