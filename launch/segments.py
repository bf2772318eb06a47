"""Every second of a run's life, told apart by phase: one segment per start of a job, or per attempt outside Slurm.

Phases come from attempts/N/phases.jsonl (train/phases.py). Around them:

    start-up   also from the start of the job to the first word of its ranks: recording, pre-flight, srun
    tail       also from the end of the ranks to the end of the job
    lost       what was under way when an attempt ended badly: the step, evaluation or save that was begun and never
               finished, and the wait for ranks that answered no more

Steps that had been made and were not saved are no loss of their own: whoever makes them again is `redone`. So no second
is counted twice, and the phases of a segment sum to its length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.jsonlines import read_last_line, read_lines
from configs.runfolder import HEARTBEAT_TIMEOUT_S, Attempt, RunFolder, read_json, state_of
from configs.timekeeping import UNKNOWN, phases_path
from launch.live import Accounted, Queued
from launch.records import JobStart, read_starts

WORK = ("compile", "train", "redone", "evaluate", "save", UNKNOWN)
# Slurm's whole seconds, and the time until a job's first command runs.
SAME_START_S = 120.0
_STAGE_PHASE = {"prepare": "prepare", "eval": "evaluate", "export": "tail"}


@dataclass(frozen=True, slots=True)
class Interval:
    """A phase from one time to another, in seconds since 1970."""

    phase: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Segment:
    """One start.

    Attributes:
        job_id, restart: of Slurm; None outside it.
        stage: prepare, train, eval, export.
        attempts: made in it; usually one.
        ended_by: who says when it ended: `job` (it said so itself), `sacct`, `last sign` of a killed one, `running`.
        gpus: of all its nodes together; 0 on CPUs.
        verdict: see JobStart; without a job the state of the attempt.
        slurm_s: its length in Slurm's accounting; None when that is not known.
    """

    job_id: int | None
    restart: int | None
    stage: str
    attempts: tuple[int, ...]
    began: float
    ended: float
    ended_by: str
    gpus: int
    nodes: int
    verdict: str | None
    intervals: tuple[Interval, ...]
    slurm_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Its length."""
        return self.ended - self.began

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each phase that came; they sum to `elapsed_s`."""
        found: dict[str, float] = {}
        for interval in self.intervals:
            found[interval.phase] = found.get(interval.phase, 0.0) + interval.ended - interval.began
        return found

    def clipped(self, began: float, ended: float) -> Segment | None:
        """Returns the part of it between two times; None when there is none."""
        parts = tuple(
            Interval(part.phase, max(part.began, began), min(part.ended, ended))
            for part in self.intervals
            if part.began < ended and part.ended > began
        )
        if not parts:
            return None
        whole = began <= self.began and self.ended <= ended
        slurm_s = self.slurm_s if whole else None
        return dataclasses.replace(self, began=parts[0].began, ended=parts[-1].ended, intervals=parts, slurm_s=slurm_s)


def segments_of(
    run: Path, *, now: float, queue: Mapping[int, Queued] | None = None, accounted: Sequence[Accounted] = ()
) -> list[Segment]:
    """Returns the segments of a run, oldest first.

    Args:
        run: its folder.
        now: seconds since 1970; a segment that goes on ends here.
        queue: what squeue knows, by job.
        accounted: what sacct knows.
    """
    starts = read_starts(run)
    attempts = RunFolder(run).attempts()
    owner = {attempt.number: attempt.read_start() or {} for attempt in attempts}
    taken: set[int] = set()
    segments = []
    for start in starts:
        own = [a for a in attempts if _belongs(owner[a.number], start)] if start.stage == "train" else []
        taken.update(a.number for a in own)
        later = [other.began for other in starts if other.job_id == start.job_id and other.restart > start.restart]
        segments.append(_of_start(run, start, own, min(later, default=None), now, queue or {}, accounted))
    for attempt in attempts:
        if attempt.number not in taken and (segment := _of_attempt(run, attempt, owner[attempt.number], now)) is not None:
            segments.append(segment)
    return sorted(segments, key=lambda segment: segment.began)


def _belongs(begun: Mapping[str, Any], start: JobStart) -> bool:
    return begun.get("job_id") == start.job_id and begun.get("job_restart") == start.restart


def _of_start(
    run: Path,
    start: JobStart,
    attempts: list[Attempt],
    next_began: float | None,
    now: float,
    queue: Mapping[int, Queued],
    accounted: Sequence[Accounted],
) -> Segment:
    row = _row_of(start, accounted)
    ended, ended_by = _end_of(run, start, attempts, next_began, now, queue, row)
    ended = max(start.began, ended if next_began is None else min(ended, next_began))
    if start.stage in _STAGE_PHASE:
        intervals = [Interval(_STAGE_PHASE[start.stage], start.began, ended)]
    else:
        intervals = _intervals(attempts, start.began, ended, is_running=ended_by == "running")
    return Segment(
        job_id=start.job_id,
        restart=start.restart,
        stage=start.stage,
        attempts=tuple(attempt.number for attempt in attempts),
        began=start.began,
        ended=ended,
        ended_by=ended_by,
        gpus=start.gpus_per_node * len(start.nodes),
        nodes=len(start.nodes),
        verdict=start.verdict,
        intervals=tuple(intervals),
        slurm_s=row.elapsed_s if row is not None and row.ended is not None else None,
    )


def _row_of(start: JobStart, accounted: Sequence[Accounted]) -> Accounted | None:
    """Returns the accounting's row of this start: the nearest in time, as Slurm does not number them."""
    rows = [row for row in accounted if row.job_id == start.job_id and abs(row.began - start.began) < SAME_START_S]
    return min(rows, key=lambda row: abs(row.began - start.began), default=None)


def _end_of(
    run: Path,
    start: JobStart,
    attempts: list[Attempt],
    next_began: float | None,
    now: float,
    queue: Mapping[int, Queued],
    row: Accounted | None,
) -> tuple[float, str]:
    if start.ended is not None:
        return start.ended, "job"
    if row is not None and row.ended is not None:
        return row.ended, "sacct"
    signs = [start.began, start.checked or 0.0, *(last_sign(attempt) for attempt in attempts)]
    queued = queue.get(start.job_id)
    if next_began is None and queued is not None:
        is_alive = queued.works
    else:
        has_ended = any(attempt.exit_path.exists() for attempt in attempts)
        is_alive = next_began is None and not has_ended and now - max(signs) < HEARTBEAT_TIMEOUT_S
    return (now, "running") if is_alive else (max(signs), "last sign")


def _of_attempt(run: Path, attempt: Attempt, begun: Mapping[str, Any], now: float) -> Segment | None:
    """Returns the segment of an attempt outside Slurm; None when it ended before it had a start."""
    lines = read_lines(phases_path(attempt))
    if not begun:
        return None
    began = min([float(begun["time"]), *(float(line["time"]) for line in lines[:1])])
    end = read_json(attempt.exit_path)
    is_newest = attempt.successor() is None
    state = state_of(run).state if is_newest else str((end or {}).get("state", "killed"))
    if end is None and is_newest and state == "running":
        ended, ended_by = now, "running"
    elif lines and lines[-1]["phase"] == "ended":
        ended, ended_by = float(lines[-1]["time"]), "job"
    else:
        ended, ended_by = (float(end["time"]), "job") if end is not None else (last_sign(attempt), "last sign")
    ended = max(began, ended)
    started = next((event for event in read_lines(attempt.events_path) if event["event"] == "started"), {})
    world = int(begun.get("processes", started.get("world", 1)))
    return Segment(
        job_id=begun.get("job_id"),
        restart=begun.get("job_restart"),
        stage="train",
        attempts=(attempt.number,),
        began=began,
        ended=ended,
        ended_by=ended_by,
        gpus=world if started.get("device", "CPU") != "CPU" else 0,
        nodes=1,
        verdict=state,
        intervals=tuple(_intervals([attempt], began, ended, is_running=ended_by == "running")),
    )


def _intervals(attempts: list[Attempt], began: float, ended: float, *, is_running: bool) -> list[Interval]:
    """Returns the phases between two times without a gap."""
    marks = [("start-up", began)]
    for attempt in attempts:
        lines = read_lines(phases_path(attempt))
        marks += [("tail" if line["phase"] == "ended" else str(line["phase"]), float(line["time"])) for line in lines]
        if not lines and (begun := attempt.read_start()) is not None:
            marks.append((UNKNOWN, float(begun["time"])))
    intervals: list[Interval] = []
    # Clocks of two nodes may differ by a second: no phase begins before the one before it, or after the end.
    times = [min(max(at, began), ended) for _, at in marks] + [ended]
    for (phase, _), at, until in zip(marks, times[:-1], times[1:], strict=True):
        at = max(at, intervals[-1].ended if intervals else began)
        if until > at:
            intervals.append(Interval(phase, at, until))
    if attempts and not is_running and not _ended_well(attempts[-1]):
        under_way = next(phase for phase, _ in reversed(marks) if phase != "tail")
        intervals = _with_loss(intervals, attempts[-1], under_way)
    return intervals


def _ended_well(attempt: Attempt) -> bool:
    """True when everything that it did is in its checkpoints or its result."""
    end = read_json(attempt.exit_path)
    return end is not None and end["state"] in ("done", "stopped")


def _with_loss(intervals: list[Interval], attempt: Attempt, under_way: str) -> list[Interval]:
    """Returns the intervals with the last work of an attempt that ended badly marked as lost, from its last whole step on."""
    index = max((i for i, part in enumerate(intervals) if part.phase != "tail"), default=None)
    # A phase that another had followed was over when the attempt ended, though that one lasted no time.
    if index is None or intervals[index].phase not in WORK or intervals[index].phase != under_way:
        return intervals
    part = intervals[index]
    whole = part.began
    if part.phase not in ("evaluate", "save"):
        whole = min(max(part.began, _last_step_at(attempt, part.ended)), part.ended)
    cut = [Interval(part.phase, part.began, whole), Interval("lost", whole, part.ended)]
    return [*intervals[:index], *(piece for piece in cut if piece.ended > piece.began), *intervals[index + 1 :]]


def _last_step_at(attempt: Attempt, ended: float) -> float:
    """Returns when the attempt finished its last whole step; 0 when it finished none."""
    line = read_last_line(attempt.metrics_path)
    at = float(line["time"]) if line is not None else 0.0
    # metrics.jsonl may have every tenth step only; the ledger has each, without its time.
    if attempt.ledger_path.exists() and at < (written := attempt.ledger_path.stat().st_mtime) <= ended:
        return written
    return at


def last_sign(attempt: Attempt) -> float:
    """Returns when the attempt last wrote anything, in seconds since 1970."""
    end = read_json(attempt.exit_path)
    if end is not None:
        return float(end["time"])
    files = (attempt.start_path, attempt.metrics_path, attempt.events_path, attempt.ledger_path, phases_path(attempt))
    notes = (attempt.path / "ranks").glob("rank-*.json")
    return max((path.stat().st_mtime for path in (*files, *notes) if path.exists()), default=0.0)
