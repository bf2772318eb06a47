"""One worker process per rank on this machine, started by the absolute path of this command. Torch-free.

Workers get torchrun's environment variables. Signals go to every worker, so a stop request reaches all ranks; when one
worker dies, the others are ended; the exit code is that of exit.json, which rank 0 writes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from configs.runfolder import RunFolder, read_json

GRACE_S = 30.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def spawn(arguments: Sequence[str], processes: int, folder: RunFolder) -> int:
    """Runs `aisc *arguments` on `processes` ranks; returns the exit code of the run.

    Rank 0 has this terminal; what other ranks print is shown when they fail.
    """
    workers = _start(arguments, processes)

    def forward(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        codes = _wait(workers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _exit_code(codes, folder)


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
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (no thread is started before this)
            start_new_session=True,
            stdout=None if rank == 0 else subprocess.DEVNULL,
        )
        for rank in range(processes)
    ]


def _wait(workers: list[subprocess.Popen[bytes]]) -> list[int]:
    """Waits for all; when one fails the others get SIGTERM, and SIGKILL after a grace time."""
    deadline: float | None = None
    while any(worker.poll() is None for worker in workers):
        failed = any(worker.poll() not in (None, 0, 75) for worker in workers)
        now = time.monotonic()
        if failed and deadline is None:
            deadline = now + GRACE_S
            # The others usually notice by themselves within a second: their connections close.
            _end(workers, signal.SIGTERM)
        elif deadline is not None and now > deadline:
            _end(workers, signal.SIGKILL)
        time.sleep(_POLL_S)
    return [worker.wait() for worker in workers]


def _end(workers: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)


def _exit_code(codes: list[int], folder: RunFolder) -> int:
    """Returns what the run says of its end; without that, the code of the first rank that failed."""
    failed = [code for code in codes if code not in (0, 75)]
    if not failed:
        return codes[0]
    attempts = folder.attempts()
    ending = read_json(attempts[-1].exit_path) if attempts else None
    if ending is not None and ending["code"] not in (0, 75):
        return int(ending["code"])
    return 130 if 130 in failed else max(1, failed[0])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
