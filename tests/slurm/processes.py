"""Processes of the test cluster: only what it started is ever signalled, known by number and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Popen objects of daemons started by this process: kept, so that they are collected when they end.
_children: list[subprocess.Popen[bytes]] = []


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the state on; empty without such a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def start_time(pid: int) -> str:
    """Returns when process `pid` began, in the kernel's ticks; empty without such a process or when it is a zombie."""
    fields = _stat(pid)
    return "" if not fields or fields[0] == "Z" else fields[19]


class Daemons:
    """The daemons of one cluster, each known by a file `STATE/pids/NAME`, so that another process can stop them."""

    def __init__(self, state: Path) -> None:
        self._pids = state / "pids"
        self._logs = state / "log"

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts a daemon in the foreground of a session of its own; its standard input is a pipe."""
        with (self._logs / f"{name}.out").open("ab") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=dict(environment), start_new_session=True
            )
        _children.append(child)
        (self._pids / name).write_text(f"{child.pid} {start_time(child.pid)}")
        return child

    def pid(self, name: str) -> int | None:
        """Returns the process of a daemon; None when it does not run."""
        for child in _children:
            child.poll()
        try:
            pid, started = (self._pids / name).read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if start_time(int(pid)) == started else None

    def names(self) -> list[str]:
        """Returns the names of the daemons that run."""
        return sorted(path.name for path in self._pids.glob("*") if self.pid(path.name) is not None)

    def end(self, name: str, grace_s: float = 5.0, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends a daemon: `number`, and SIGKILL when it is still there after `grace_s`."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, number)
            deadline = time.monotonic() + grace_s
            while self.pid(name) is not None and time.monotonic() < deadline:
                time.sleep(0.02)
            if self.pid(name) is not None:
                os.kill(pid, signal.SIGKILL)
        while self.pid(name) is not None:
            time.sleep(0.02)
        (self._pids / name).unlink(missing_ok=True)

    def last_words(self, name: str) -> str:
        """Returns the end of what a daemon printed."""
        path = self._logs / f"{name}.out"
        return path.read_text(errors="replace")[-600:] if path.exists() else ""


def seeing(file: Path, mounted_at: str) -> list[int]:
    """Returns the processes that see `file` at `mounted_at`: those of one mount namespace, whatever became of their
    environment (slurmstepd overwrites its own) or their parent.
    """
    # The first name is that inside its file system: the end of the path, where /tmp is one of its own.
    end = f"/{file.parent.parent.parent.name}/{file.relative_to(file.parent.parent.parent)}"
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mounts = [line.split()[3:5] for line in (folder / "mountinfo").read_text().splitlines()]
        except OSError:
            continue
        if any(point == mounted_at and source.endswith(end) for source, point in mounts):
            found.append(int(folder.name))
    return found


def kill(pids: Sequence[int]) -> None:
    """SIGKILLs processes; those that are gone already do not matter."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_until(happened: Callable[[], bool], timeout_s: float, what: Callable[[], str], every_s: float = 0.1) -> None:
    """Waits until `happened()`.

    Raises:
        TimeoutError: it did not within `timeout_s`; `what()` says what was waited for, and how things stand.
    """
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s:.0f} s: {what()}")
        time.sleep(every_s)
