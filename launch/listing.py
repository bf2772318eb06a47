"""The list of runs with what Slurm does with them right now. One squeue call for all; files only where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.jsonlines import read_lines
from configs.runfolder import Attempt, RunFolder, read_json
from launch.explain import Facts, read_facts
from launch.goodput import Goodput
from launch.live import Accounts, Queue, ask_queue, jobs_of
from launch.runs import RunSummary, all_runs, summarize
from launch.segments import segments_of
from launch.words import spell_length

# Steps over which the pace is measured, evaluations and saves between them included.
PACE_STEPS = 200
_KINDS = {
    "input": "input",
    "memory": "out of memory",
    "disk": "disk full",
    "lost": "rank lost",
    "hang": "hang",
    "failed": "a check",
    "error": "error",
    "interrupt": "interrupted",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list.

    Attributes:
        state: in a few words.
        is_bad: somebody should look.
        hours: GPU-hours so far; None: no GPU.
        trained: share of them in which new steps were made.
        left: `5 h 30`, `waits` or `-`.
    """

    summary: RunSummary
    state: str
    is_bad: bool
    hours: float | None
    trained: float | None
    left: str


def list_rows(parent: Path, now: float) -> tuple[list[Row], str]:
    """Returns the rows, newest first, and why Slurm was not asked where it could have been."""
    runs = all_runs(parent)
    unfinished = [run for run in runs if not run.result_path.exists()]
    queue = ask_queue(number for run in unfinished for number in jobs_of(run.path))
    return [row_of(run, queue, now) for run in runs], queue.note


def row_of(run: RunFolder, queue: Queue, now: float) -> Row:
    """Returns the line of one run."""
    # Without prices: a list of a hundred runs need not read a hundred configurations.
    account = Goodput(run.name, None, tuple(segments_of(run.path, now=now, queue=queue.jobs)), 0.0)
    facts = read_facts(run.path, now, queue, Accounts(), account)
    summary = summarize(run)
    state, is_bad = spell_live(facts)
    hours = account.total if account.unit == "GPU-hours" and account.segments else None
    live = facts.live
    if live is not None and live.waits:
        left = "waits"
    else:
        left = spell_length(seconds) if state.startswith("running") and (seconds := seconds_left(facts.attempts)) is not None else "-"
    return Row(summary, state, is_bad, hours, account.trained, left)


def sweep_hours(sweep: Path, now: float) -> tuple[float | None, float | None]:
    """Returns the GPU-hours of all points of a sweep, None without a GPU, and the share of them that trained."""
    runs = [path for path in sweep.iterdir() if (path / "attempts").is_dir() or (path / "jobs").is_dir()]
    segments = tuple(segment for run in runs for segment in segments_of(run, now=now))
    account = Goodput(sweep.name, None, segments, 0.0)
    return account.total if segments and account.unit == "GPU-hours" else None, account.trained


def spell_live(facts: Facts) -> tuple[str, bool]:
    """Returns a run's state in a few words, and whether somebody should look."""
    live, start = facts.live, facts.last_start
    if live is not None and live.waits:
        begun = len([start for start in facts.starts if start.job_id == live.job_id])
        return (f"requeued {live.job_id} x{begun}" if begun else f"waits {live.job_id}"), False
    if live is not None:
        return f"running {live.job_id} {live.nodes}".rstrip(), False
    if start is not None and start.verdict == "gave up":
        return "gave up", True
    state = facts.status.state
    if state == "failed":
        end = read_json(facts.attempts[-1].exit_path) or {}
        kind = str(end.get("kind", ""))
        return f"failed: {_KINDS.get(kind, kind)}".rstrip(": "), True
    if state == "new":
        if start is not None and start.verdict == "failed":
            return "failed: before it began", True
        return ("not in the queue" if facts.jobs else "new"), bool(facts.jobs)
    return state, state == "killed"


def seconds_left(attempts: list[Attempt]) -> float | None:
    """Returns the time that the steps left take at the pace of the last ones; None before there is a pace."""
    if not attempts:
        return None
    total = int((attempts[-1].read_start() or {}).get("total_steps", 0))
    steps = [line for line in read_lines(attempts[-1].metrics_path) if "loss" in line][-PACE_STEPS:]
    made = int(steps[-1]["step"]) - int(steps[0]["step"]) if steps else 0
    if made < 1 or not total:
        return None
    return (total - int(steps[-1]["step"])) * (float(steps[-1]["time"]) - float(steps[0]["time"])) / made
