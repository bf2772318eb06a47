"""One worker process per rank on this machine, started by the absolute path of this command. Torch-free.

Workers get torchrun's environment variables. Signals go to every worker, so a stop request reaches all ranks; when one
worker dies, the others are ended; the exit code is that of exit.json. What ranks write to stderr is shown as it comes,
but what several say alike is shown once; a rank that was killed before anybody could say so is named here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import FrameType
from typing import IO, Any

from configs.runfolder import RunFolder, process_state, read_json

GRACE_S = 30.0
ENDING_S = 300.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def spawn(arguments: Sequence[str], processes: int, folder: RunFolder) -> int:
    """Runs `aisc *arguments` on `processes` ranks; returns the exit code of the run.

    Rank 0 has this terminal; of the other ranks only what they write to stderr is shown.
    """
    known = {attempt.number for attempt in folder.attempts()}
    workers = _start(arguments, processes)
    echo = _Echo(workers)

    def forward(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        codes, first = _wait(workers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    echo.finish()
    # With --new the workers may have taken another name than this process found free: then there is no exit.json here.
    attempts = [attempt for attempt in folder.attempts() if attempt.number not in known]
    ending = read_json(attempts[-1].exit_path) if attempts else None
    if ending is None and not echo.has_reason and first is not None and codes[first] < 0:
        name = signal.Signals(-codes[first]).name
        said = f"failed: rank {first} (pid {workers[first].pid}) was killed by {name} before the run could say so"
        sys.stderr.write(f"{said}\n")
    return _exit_code(codes, ending)


class _Echo:
    """Copies the workers' stderr to ours, line by line; a line that another rank has written already is left out."""

    def __init__(self, workers: list[subprocess.Popen[bytes]]) -> None:
        self.has_reason = False
        self._shown: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._copy, args=(worker.stderr,), daemon=True) for worker in workers]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Waits for the last lines; a grandchild that keeps the pipe open is not waited for."""
        for thread in self._threads:
            thread.join(timeout=2.0)

    def _copy(self, lines: IO[bytes]) -> None:
        own: Counter[bytes] = Counter()
        for line in lines:
            own[line] += 1
            with self._lock:
                if own[line] > self._shown[line]:
                    self._shown[line] += 1
                    self.has_reason |= line.startswith((b"failed:", b"error:"))
                    sys.stderr.buffer.write(line)
                    sys.stderr.buffer.flush()


def _start(arguments: Sequence[str], processes: int) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, os.path.abspath(sys.argv[0]), *arguments]
    shared = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        # Ranks share the machine's cores; without a limit each would take them all.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes))),
    }
    return [
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            # A worker must not outlive this process, and a terminal's Ctrl-C must reach it once: through us.
            preexec_fn=die_with_parent,  # noqa: PLW1509  (no thread is started before this)
            start_new_session=True,
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in range(processes)
    ]


def _wait(workers: list[subprocess.Popen[bytes]]) -> tuple[list[int], int | None]:
    """Waits for all; returns the exit codes, and which rank failed first.

    When one fails the others get SIGTERM, and SIGKILL after a grace time. When one has ended by itself, after the run or
    after a hang, the others have time to do the same (rank 0 writes the report), but a suspended one never would.
    """
    deadline: float | None = None
    first: int | None = None
    while any(worker.poll() is None for worker in workers):
        ended = [rank for rank, worker in enumerate(workers) if worker.poll() is not None]
        failed = [rank for rank in ended if workers[rank].returncode not in (0, 75)]
        now = time.monotonic()
        if failed and first is None:
            first, deadline = failed[0], now + GRACE_S
            # The others usually notice by themselves within a second: their connections close.
            _end(workers, signal.SIGTERM)
        elif ended and deadline is None:
            deadline = now + ENDING_S
        elif (deadline is not None and now > deadline) or (
            ended and all(process_state(w.pid, None) == "suspended" for w in workers if w.returncode is None)
        ):
            _end(workers, signal.SIGKILL)
        time.sleep(_POLL_S)
    codes = [worker.wait() for worker in workers]
    if first is None:
        first = next((rank for rank, code in enumerate(codes) if code not in (0, 75)), None)
    return codes, first


def _end(workers: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)


def _exit_code(codes: list[int], ending: dict[str, Any] | None) -> int:
    """Returns what the run says of its end; without that, the code of the first rank that failed."""
    failed = [code for code in codes if code not in (0, 75)]
    if not failed:
        return codes[0]
    if ending is not None and ending["code"] != 0:
        return int(ending["code"])
    return 130 if 130 in failed else max(1, failed[0])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def die_with_parent() -> None:
    """Asks the kernel to end this process with its parent; for `preexec_fn`, before any thread is started."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
