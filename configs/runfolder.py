"""The run folder: claim an attempt, follow the chain of attempts, read and write what lies there. Only stdlib.

Nothing shared is ever appended. Each start claims `attempts/N/` by `mkdir` (N = highest + 1) and writes only there;
`start.json` names the checkpoint it continues from. Readers follow those names back from the highest attempt, so what a
superseded attempt writes later is never read.

    runs/NAME/attempts/N/  config.yaml start.json metrics.jsonl ledger.jsonl events.jsonl logs/ checkpoints/ exit.json
    runs/NAME/             result.json model/ report.html manifest.json   (rebuilt from the chain, by rename)
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import atomic
from configs.errors import CheckpointError, RunFailed
from configs.jsonlines import append_line, read_lines

logger = logging.getLogger(__name__)

HEARTBEAT_TIMEOUT_S = 600.0
CHECKPOINT_PREFIX = "step-"
# Facts of a start that a continuation must find again, with the words for the message.
FIXED_FACTS = {
    "identity": "the run's configuration",
    "store": "the training data (store fingerprint)",
    "weights": "the model's weights",
    "tokenizer": "the tokenizer",
}


class Superseded(RunFailed):
    """A later attempt of the same run exists; this one must not publish anything."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The checkpoint that an attempt continues from."""

    attempt: int
    step: int
    manifest: str  # SHA-256 of its manifest.json, hex


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One attempt of the chain; only what it did up to `until_step` counts (None: all of it)."""

    attempt: Attempt
    until_step: int | None
    manifest: str | None  # of the checkpoint at `until_step`


@dataclass(frozen=True, slots=True)
class Status:
    """What a run is doing: state is new, running, done, stopped, failed, superseded or killed; cause is a sentence."""

    state: str
    cause: str
    attempt: int | None = None
    code: int | None = None

    def __str__(self) -> str:
        return f"{self.state}: {self.cause}" if self.cause else self.state


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a run and its folder, the only one it writes to."""

    run: Path
    number: int

    @property
    def path(self) -> Path:
        """Folder of this attempt."""
        return self.run / "attempts" / str(self.number)

    @property
    def config_path(self) -> Path:
        """The frozen configuration."""
        return self.path / "config.yaml"

    @property
    def start_path(self) -> Path:
        """Facts of the start and the parent checkpoint."""
        return self.path / "start.json"

    @property
    def metrics_path(self) -> Path:
        """One line per step and per evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def ledger_path(self) -> Path:
        """One line per step: the rows consumed and the head of the hash chain."""
        return self.path / "ledger.jsonl"

    @property
    def events_path(self) -> Path:
        """One line per thing that happened: saved, skipped, stopping."""
        return self.path / "events.jsonl"

    @property
    def exit_path(self) -> Path:
        """How the attempt ended; absent while it runs and after a kill."""
        return self.path / "exit.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of this attempt's checkpoints."""
        return self.path / "checkpoints"

    @property
    def log_dir(self) -> Path:
        """Folder of the ranks' logs."""
        return self.path / "logs"

    def write_start(self, facts: dict[str, Any], parent: Parent | None) -> None:
        """Writes `start.json`: the facts given, the parent checkpoint, this process and host."""
        atomic.write_json(
            self.start_path,
            {
                **facts,
                "parent": None
                if parent is None
                else {"attempt": parent.attempt, "step": parent.step, "manifest": parent.manifest},
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "pid_started": process_start(os.getpid()),
                "time": time.time(),
                **_slurm_job(),
            },
        )

    def read_start(self) -> dict[str, Any] | None:
        """Returns `start.json`; None when the attempt ended before it was written."""
        return read_json(self.start_path)

    def parent(self) -> Parent | None:
        """Returns the checkpoint this attempt continued from; None for a fresh start."""
        start = self.read_start()
        if start is None or start.get("parent") is None:
            return None
        parent = Parent(**start["parent"])
        if parent.attempt >= self.number:
            raise CheckpointError(f"{self.start_path}: parent attempt {parent.attempt} is not an earlier one")
        return parent

    def event(self, kind: str, **fields: Any) -> None:
        """Appends a line to events.jsonl; a full disk is a warning here, it is the next save that must say it."""
        try:
            append_line(self.events_path, {"time": time.time(), "event": kind, **fields})
        except OSError as error:
            logger.warning("event %s not written to %s: %s", kind, self.events_path, error.strerror)

    def stop_requested(self) -> bool:
        """True when somebody asked this attempt to save and stop, by the file `stop`."""
        return (self.path / "stop").exists()

    def finish(self, state: str, code: int, cause: str = "", **fields: Any) -> None:
        """Writes `exit.json`: state is done, stopped, failed or superseded; `code` is the exit code."""
        atomic.write_json(self.exit_path, {"state": state, "code": code, "cause": cause, "time": time.time(), **fields})

    def successor(self) -> int | None:
        """Returns the highest attempt's number when it is higher than this one's."""
        highest = max(attempt_numbers(self.run), default=0)
        return highest if highest > self.number else None

    def check_current(self) -> None:
        """Raises Superseded when a later attempt exists; call it before publishing anything."""
        later = self.successor()
        if later is not None:
            raise Superseded(
                f"attempt {self.number} of {self.run.name} stops without saving: attempt {later} has started since. "
                "Nothing was changed; its result is that of the later attempt."
            )


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run: a name, a folder, its attempts."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def result_path(self) -> Path:
        """The run's result.json, present when it is done."""
        return self.path / "result.json"

    def attempts(self) -> list[Attempt]:
        """Returns the attempts in order of their numbers."""
        return [Attempt(self.path, number) for number in attempt_numbers(self.path)]

    def claim(self) -> Attempt:
        """Makes the next attempt's folder and returns it; two processes never get the same one.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        try:
            os.makedirs(self.path / "attempts", mode=0o700, exist_ok=True)
            self.path.chmod(0o700)
            while True:
                attempt = Attempt(self.path, max(attempt_numbers(self.path), default=0) + 1)
                try:
                    os.mkdir(attempt.path, 0o700)
                    break
                except FileExistsError:
                    continue
            os.mkdir(attempt.checkpoints, 0o700)
            os.mkdir(attempt.log_dir, 0o700)
            atomic.fsync_folder(attempt.path.parent)
        except OSError as error:
            raise CheckpointError(
                f"run folder {self.path}: cannot be written ({error.strerror}); "
                "set run.dir or $AISC_RUNS to a folder of yours"
            ) from error
        return attempt

    def chain(self, *, below: int | None = None) -> list[ChainLink]:
        """Returns the attempts that count, newest first.

        An attempt without `start.json` (killed before it had one) counts for nothing and is passed over.

        Args:
            below: only attempts with lower numbers; what a new attempt asks before it writes its own start.
        """
        known = {a.number: a for a in self.attempts() if below is None or a.number < below}
        begun = (a for _, a in sorted(known.items(), reverse=True) if a.start_path.exists())
        attempt = next(begun, None)
        links: list[ChainLink] = []
        until: int | None = None
        manifest: str | None = None
        while attempt is not None:
            links.append(ChainLink(attempt, until, manifest))
            parent = attempt.parent()
            if parent is None:
                break
            until = parent.step if until is None else min(until, parent.step)
            manifest = parent.manifest if until == parent.step else None
            attempt = known.get(parent.attempt)
            if attempt is None:
                raise CheckpointError(f"{links[-1].attempt.start_path}: its parent, attempt {parent.attempt}, is gone")
        return links

    def superseded(self, attempt: Attempt) -> bool:
        """True when a later attempt than `attempt` exists."""
        return attempt.successor() is not None

    def check_idle(self) -> None:
        """Raises CheckpointError when another process of this machine is training this run and can go on.

        Only what is certain is refused: a process on another machine may be gone (a lost node), and the new attempt
        then supersedes it.
        """
        for attempt in self.attempts()[-1:]:
            start = None if attempt.exit_path.exists() else attempt.read_start()
            if start is None or start["host"] != socket.gethostname() or start["pid"] == os.getpid():
                continue
            if _is_alive(int(start["pid"]), start["pid_started"]):
                raise CheckpointError(
                    f"{self.path}: process {start['pid']} on this machine is training this run (attempt "
                    f"{attempt.number}). Wait for it, or let it save and stop: kill {start['pid']}"
                )

    def check_same(self, facts: dict[str, Any]) -> None:
        """Compares a new start with the newest one of the chain.

        Raises:
            CheckpointError: data, weights, tokenizer or identity are not those of the run; names each and both hashes.
        """
        for link in self.chain()[:1]:
            before = link.attempt.read_start() or {}
            problems = [
                f"{self.path}: {words} changed: {_short(before[key])} in {link.attempt.start_path}, "
                f"{_short(facts[key])} now"
                for key, words in FIXED_FACTS.items()
                if before.get(key) is not None and facts.get(key) is not None and before[key] != facts[key]
            ]
            if problems:
                remedy = "Put back what was there to continue, or start a new run: --new"
                raise CheckpointError("\n".join([*problems, remedy]))


def runs_dir(section_dir: str | None) -> Path:
    """Returns the folder of all runs: `run.dir`, else $AISC_RUNS, else ./runs."""
    return Path(section_dir or os.environ.get("AISC_RUNS") or "runs")


def attempt_numbers(run: Path) -> list[int]:
    """Returns the numbers of the attempts in folder `run`, lowest first."""
    try:
        names = os.listdir(run / "attempts")
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the object in `path`; None when there is no such file.

    Raises:
        CheckpointError: it is not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged, not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: damaged, not a JSON object")
    return value


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl along the chain, oldest first."""
    return _read_chain(run, "metrics.jsonl")


def read_ledger(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of ledger.jsonl along the chain, oldest first."""
    return _read_chain(run, "ledger.jsonl")


def read_events(run: Path) -> list[dict[str, Any]]:
    """Returns the events of all attempts, each with its attempt's number, in the order of the attempts."""
    return [
        {"attempt": attempt.number, **line}
        for attempt in RunFolder(run).attempts()
        for line in read_lines(attempt.events_path)
    ]


def request_stop(run: Path) -> Attempt | None:
    """Asks the newest attempt to save and stop; returns it, None when there is none."""
    attempts = RunFolder(run).attempts()
    if not attempts:
        return None
    atomic.write_file(attempts[-1].path / "stop", "")
    return attempts[-1]


def state_of(run: Path) -> Status:
    """Returns what the run is doing, from its newest attempt's exit.json, process and heartbeat."""
    attempts = RunFolder(run).attempts()
    if not attempts:
        return Status("new", "")
    attempt = attempts[-1]
    end = read_json(attempt.exit_path)
    if end is not None:
        return Status(str(end["state"]), str(end.get("cause", "")), attempt.number, int(end["code"]))
    start = attempt.read_start()
    age_s = time.time() - _last_sign(attempt)
    if start is not None and start["host"] == socket.gethostname():
        if _is_alive(int(start["pid"]), start["pid_started"]):
            return Status("running", f"process {start['pid']} on this machine", attempt.number)
        return Status("killed", f"process {start['pid']} is gone and left no exit.json", attempt.number)
    host = "this machine" if start is None else str(start["host"])
    if age_s < (60.0 if start is None else HEARTBEAT_TIMEOUT_S):
        return Status("running", f"on {host}, last sign {age_s:.0f} s ago", attempt.number)
    return Status("killed", f"no sign from {host} for {age_s:.0f} s, and no exit.json", attempt.number)


def saved_step(run: Path) -> int:
    """Returns the newest step that a checkpoint of the chain holds, by the names of their folders; 0 without any."""
    return max((step for link in RunFolder(run).chain() for step in _saved_steps(link)), default=0)


def _saved_steps(link: ChainLink) -> list[int]:
    """Returns the steps that this attempt has published and that count."""
    names = [path.name for path in link.attempt.checkpoints.glob(f"{CHECKPOINT_PREFIX}*")]
    steps = [int(number) for name in names if (number := name.removeprefix(CHECKPOINT_PREFIX)).isdigit()]
    return [step for step in steps if link.until_step is None or step <= link.until_step]


def _slurm_job() -> dict[str, int]:
    """Returns which start of which job of Slurm this process is part of; nothing outside one."""
    if not os.environ.get("SLURM_JOB_ID", "").isdigit():
        return {}
    return {
        "job_id": int(os.environ["SLURM_JOB_ID"]),
        "job_restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def _read_chain(run: Path, name: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for link in reversed(RunFolder(run).chain()):
        for line in read_lines(link.attempt.path / name):
            if link.until_step is None or int(line["step"]) <= link.until_step:
                lines.append(line)
    return lines


def _last_sign(attempt: Attempt) -> float:
    """Returns the time of the attempt's last write, in seconds since 1970."""
    times = [attempt.path.stat().st_mtime]
    for path in (attempt.start_path, attempt.metrics_path, attempt.events_path):
        if path.exists():
            times.append(path.stat().st_mtime)
    return max(times)


def _process_fields(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the state on; empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def process_start(pid: int) -> str | None:
    """Returns when the process started (clock ticks since boot), which tells it from a later one of the same number."""
    fields = _process_fields(pid)
    return fields[19] if len(fields) > 19 else None


def process_state(pid: int, started: str | None) -> str:
    """Returns `running`, `suspended` or `gone` of a process of this machine."""
    fields = _process_fields(pid)
    if not fields or fields[0] in "ZX" or (started is not None and fields[19] != started):
        return "gone"
    return "suspended" if fields[0] in "Tt" else "running"


def _is_alive(pid: int, started: str | None) -> bool:
    """True for a process that can go on: not ended, not a zombie, not suspended, not another with its number."""
    return process_state(pid, started) == "running"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}.."
