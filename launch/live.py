"""What Slurm knows of jobs right now (squeue) and knew of past ones (sacct). One bounded call each; neither is needed."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import LaunchError
from launch.records import read_jobs, read_starts
from launch.slurm_client import call

# A person waits for this screen; a controller that is away is said so after these seconds.
PATIENCE_S = 12.0
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
AT_WORK = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "SIGNALING", "STAGE_OUT", "STOPPED")
_NO_SUCH_JOB = "Invalid job id"


@dataclass(frozen=True, slots=True)
class Queued:
    """A job as squeue shows it; `start`: when it began or is expected to, seconds since 1970; `nodes` as Slurm writes them."""

    job_id: int
    state: str
    reason: str = ""
    start: float | None = None
    nodes: str = ""

    @property
    def waits(self) -> bool:
        """True before a start."""
        return self.state in WAITING

    @property
    def works(self) -> bool:
        """True during a start."""
        return self.state in AT_WORK


@dataclass(frozen=True, slots=True)
class Accounted:
    """One start of a job in the accounting; `ended` is None while it runs."""

    job_id: int
    state: str
    began: float
    ended: float | None
    elapsed_s: float
    gpus: int


@dataclass(frozen=True, slots=True)
class Queue:
    """Jobs by number; `note` says why nothing is known where something could be. Without Slurm both are empty."""

    jobs: Mapping[int, Queued] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Starts of jobs, oldest first; `note` says why there are none to compare with."""

    rows: tuple[Accounted, ...] = ()
    note: str = ""


def jobs_of(run: Path) -> list[int]:
    """Returns the numbers of a run's jobs, oldest first; a point of a sweep knows its elements of an array by their starts."""
    submitted = [(job.submitted, job.job_id) for job in read_jobs(run)]
    known = {number for _, number in submitted}
    begun = [(start.began, start.job_id) for start in read_starts(run) if start.job_id not in known]
    return list(dict.fromkeys(number for _, number in sorted([*submitted, *begun])))


def ask_queue(job_ids: Iterable[int]) -> Queue:
    """Returns what squeue says of these jobs; raises nothing."""
    wanted = sorted(set(job_ids))
    if not wanted or shutil.which("squeue") is None:
        return Queue()
    command = ("squeue", "--noheader", "--states=all", f"--jobs={','.join(map(str, wanted))}", "--format=%A|%T|%r|%S|%N")
    try:
        return Queue(parse_queue(call(command, timeout_s=PATIENCE_S)))
    except LaunchError as error:
        return Queue() if _NO_SUCH_JOB in str(error) else Queue(note=f"from files only: {error}")


def ask_accounts(job_ids: Iterable[int]) -> Accounts:
    """Returns what sacct says of these jobs, one row per start; raises nothing."""
    wanted = sorted(set(job_ids))
    if not wanted:
        return Accounts(note="it ran outside Slurm")
    if shutil.which("sacct") is None:
        return Accounts(note="sacct is not on this machine")
    fields = "JobIDRaw,State,Start,End,ElapsedRaw,AllocTRES"
    command = ("sacct", "-X", "-D", "-P", "-n", f"--format={fields}", f"--jobs={','.join(map(str, wanted))}")
    try:
        return Accounts(parse_accounts(call(command, timeout_s=PATIENCE_S)))
    except LaunchError as error:
        return Accounts(note=str(error))


def parse_queue(text: str) -> dict[int, Queued]:
    """Returns the jobs of squeue's `%A|%T|%r|%S|%N` lines."""
    found = {}
    for line in text.splitlines():
        words = line.strip().split("|")
        if len(words) == 5 and words[0].isdigit():
            reason = "" if words[2] == "None" else words[2]
            found[int(words[0])] = Queued(int(words[0]), words[1], reason, parse_time(words[3]), words[4])
    return found


def parse_accounts(text: str) -> tuple[Accounted, ...]:
    """Returns the starts of sacct's `JobIDRaw|State|Start|End|ElapsedRaw|AllocTRES` lines that began, oldest first."""
    rows = []
    for line in text.splitlines():
        words = line.strip().split("|")
        if len(words) != 6 or not words[0].isdigit() or (began := parse_time(words[2])) is None:
            continue
        gpus = re.search(r"gres/gpu=(\d+)", words[5])
        elapsed_s = float(words[4] or 0)
        rows.append(Accounted(int(words[0]), words[1], began, parse_time(words[3]), elapsed_s, int(gpus[1]) if gpus else 0))
    return tuple(sorted(rows, key=lambda row: (row.began, row.job_id)))


def parse_time(text: str) -> float | None:
    """Returns Slurm's local `2026-11-25T02:51:07` in seconds since 1970; None for `N/A` and `Unknown`."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None
