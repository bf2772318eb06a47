"""What the stages of a chain are doing now: chain.json, their run folders and the records of their jobs put together."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

from configs.runfolder import RunFolder, state_of
from launch.chain import ChainFolder, StageState
from launch.explain import cancelled_mark
from launch.records import JobStart, read_jobs, read_starts

# Under which name a run's folder holds the jobs of a stage.
JOB_STAGES = {"train": "train", "evaluate": "eval", "release": "export"}
# Back in the queue, unless `aisc runs stop` takes the job out of it.
REQUEUED = ("requeued", "excluded")
# What a stage is whose job's last start came to this; of other verdicts the training's own files say more.
ENDED = {
    "failed": "failed",
    "gave up": "failed",
    "cancelled": "cancelled",
    "interrupted": "stopped",
    **dict.fromkeys(REQUEUED, "waiting"),
}


def current_states(chain: ChainFolder) -> list[StageState]:
    """Returns the stages as they are now."""
    states = [_now(chain, copy.deepcopy(stage)) for stage in chain.info().stages]
    for before, stage in itertools.pairwise(states):
        if stage.state == "waiting" and before.state in ("failed", "cancelled"):
            cause = before.cause if before.state == "cancelled" else f"stage {before.name} failed: {before.cause}"
            stage.cause = f"not begun; {cause.removeprefix('not begun; ')}"
    return states


def _now(chain: ChainFolder, stage: StageState) -> StageState:
    run = chain.path / stage.run
    jobs = [job.job_id for job in read_jobs(run) if job.stage == JOB_STAGES[stage.kind]]
    start = last_start(run, JOB_STAGES[stage.kind])
    if start is not None and start.ended and stage.began and stage.began > start.ended:
        start = None  # it has begun again since: here, or in a start that has not come to its record
    if stage.kind == "train" and stage.state != "failed":
        status = state_of(run)
        is_alive = (start is not None and start.ended is None) or chain.is_held()
        gets_ready = stage.state == "running" and is_alive and not _has_begun(run, stage.began)
        if status.state == "done" or (status.state in ("running", "failed") and not gets_ready):
            stage.state, stage.cause = status.state, "" if status.state == "done" else status.cause
        elif stage.state == "running" and not gets_ready:
            stage.state, stage.cause = "stopped", status.cause
    if start is not None and stage.state != "done" and start.verdict in ENDED:
        is_taken_out = start.verdict in REQUEUED and cancelled_mark(run, start.job_id).exists()
        stage.state, stage.cause = "stopped" if is_taken_out else ENDED[start.verdict], stage.cause or start.cause
    elif stage.kind != "train" and stage.state == "running" and not jobs and not chain.is_held():
        stage.state, stage.cause = "stopped", "the command that ran it is gone; the same command continues"
    elif start is None and stage.state == "waiting" and jobs:
        stage.cause = f"job {jobs[-1]}"
    return stage


def _has_begun(run: Path, began: float | None) -> bool:
    """True when the newest attempt is of the start that began then: before it the pre-flight and the loading take minutes."""
    starts = [attempt.read_start() for attempt in RunFolder(run).attempts()[-1:]]
    return began is None or any(start is None or start["time"] >= began for start in starts)


def last_start(run: Path, job_stage: str) -> JobStart | None:
    """Returns the newest start of a stage's newest job."""
    jobs = [job for job in read_jobs(run) if job.stage == job_stage]
    starts = [start for start in read_starts(run) if jobs and start.job_id == jobs[-1].job_id]
    return starts[-1] if starts else None
