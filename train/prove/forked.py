"""A function on several ranks, forked from one process that has imported everything and computed nothing.

A fork costs milliseconds, importing the stack some eight CPU-seconds. Threads do not survive a fork, so a process that
has computed with torch, or looked at a GPU, must not call this: test modules start `python -m` on a scenario and read
its JSON.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_S = 240.0
LAST_CHARACTERS = 3000
# What a launcher sets: a rank that is alone must see none of it.
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")


class RanksFailed(RuntimeError):
    """Some rank raised, was killed or took too long; the message ends with what each rank printed last."""


def run_ranks(world: int, function: Callable[..., Any], *arguments: Any, timeout_s: float = TIMEOUT_S) -> list[Any]:
    """Returns what `function(*arguments)` returned (JSON types) on each of `world` forked ranks, in rank order.

    Each rank sees the environment that a launcher sets; with one rank there is none, as in a plain start.

    Raises:
        RanksFailed: a rank raised or was killed, or time ran out; the rest are killed, the message holds their output.
    """
    port = free_port()
    # A rank may fork ranks: its watchdog's thread is not there after the fork, and the next one would wait for its end.
    faulthandler.cancel_dump_traceback_later()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sys.stdout.flush()
        sys.stderr.flush()
        pids: list[int] = []
        try:
            for rank in range(world):
                pid = os.fork()
                if pid == 0:
                    _become(rank, world, port, folder, function, arguments, timeout_s)
                pids.append(pid)
            codes = _wait(pids, time.monotonic() + timeout_s)
        except BaseException:
            _kill(pids)
            raise
        if any(codes):
            logs = "\n".join(f"--- rank {i}\n{_tail(folder / f'log-{i}')}" for i in range(world))
            raise RanksFailed(f"{function.__name__} on {world} ranks: exit codes {codes}\n{logs}")
        return [json.loads((folder / f"result-{rank}").read_text()) for rank in range(world)]


def free_port() -> int:
    """Returns a TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _become(
    rank: int,
    world: int,
    port: int,
    folder: Path,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    timeout_s: float,
) -> None:
    """Is the child: never returns."""
    code = 1
    try:
        os.setsid()
        output = os.open(folder / f"log-{rank}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # The parent may have turned its own to somewhere else.
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        faulthandler.dump_traceback_later(0.9 * timeout_s)  # a rank that hangs says where
        for name in (*LAUNCHER, *SLURM):
            os.environ.pop(name, None)
        if world > 1:
            values = (rank, rank, world, world, "127.0.0.1", port)
            os.environ.update({name: str(value) for name, value in zip(LAUNCHER, values, strict=True)})
        result = function(*arguments)
        (folder / f"result-{rank}").write_text(json.dumps(result))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pids: list[int], deadline: float) -> list[int]:
    """Returns the exit codes, negative for a signal; at the deadline, or once a rank fails, kills the others."""
    codes: dict[int, int] = {}
    poll = select.poll()
    pid_of = {os.pidfd_open(pid): pid for pid in pids}
    for descriptor in pid_of:
        poll.register(descriptor, select.POLLIN)
    while len(codes) < len(pids):
        ended = [pid_of[descriptor] for descriptor, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]
        for pid in ended or [pid for pid in pids if pid not in codes]:
            if not ended:
                os.killpg(pid, signal.SIGKILL)
            codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            poll.unregister(next(descriptor for descriptor, owner in pid_of.items() if owner == pid))
        if any(codes.values()):
            # The others may wait for the lost one: a moment to say what they saw, then an end.
            deadline = min(deadline, time.monotonic() + 10.0)
    for descriptor in pid_of:
        os.close(descriptor)
    return [codes[pid] for pid in pids]


def _kill(pids: list[int]) -> None:
    """Ends every rank that is still there: whoever waited for them was interrupted."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-LAST_CHARACTERS:] if log.exists() else ""
