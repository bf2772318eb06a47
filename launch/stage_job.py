"""What the job of a stage other than the training records on its own node: that it begins, how it ended, what that stops.

Torch-free. `aisc job stage-begin` and `stage-end` call it, from the scripts of `launch/stages.py`.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from configs.errors import LaunchError
from launch.job import began_at, end_time, place_of
from launch.records import JobStart, jobs_folder, read_jobs, read_start, write_start
from launch.stages import cancelled_start, followers

# Slurm looks at time limits twice a minute.
NEAR_END_S = 60.0
# Longest cause that is copied from the job's output.
_LONGEST = 300


def begin_stage(run: Path, stage: str, environment: Mapping[str, str]) -> JobStart:
    """Records that a start of `stage` begins."""
    gpus = len([name for name in environment.get("SLURM_JOB_GPUS", "").split(",") if name.strip()])
    place = place_of(environment, stage, gpus)
    start = JobStart(
        job_id=place.job_id, stage=stage, restart=place.restart, began=began_at(environment), nodes=place.nodes, gpus_per_node=gpus
    )
    write_start(run, start)
    return start


def end_stage(run: Path, stage: str, code: int, environment: Mapping[str, str]) -> tuple[int, str]:
    """Records how this start of `stage` ended, and on failure that the jobs behind it never begin.

    Returns the job's exit code, and a line for its output. A stage that a signal ended (a limit, preemption, scancel) is
    `interrupted`: whether it comes back is Slurm's to decide, so nothing is said of what follows.
    """
    job_id, restart = int(environment["SLURM_JOB_ID"]), int(environment.get("SLURM_RESTART_COUNT") or 0)
    start = read_start(run, job_id, restart)
    if start is None:
        raise LaunchError(f"job {job_id}, start {restart}: its beginning was not recorded in {jobs_folder(run)}")
    verdict, cause = "finished", ""
    if code > 128 and time.time() >= (end_time(environment) or float("inf")) - NEAR_END_S:
        verdict, cause = "failed", "its time limit was reached; a longer one: cluster.time"
    elif code > 128:
        verdict, cause = "interrupted", f"signal {code - 128}: preemption or scancel"
    elif code:
        verdict, cause = "failed", last_words(jobs_folder(run) / f"{job_id}.out") or f"exit code {code}"
    ended = dataclasses.replace(start, ended=time.time(), code=code, verdict=verdict, cause=cause)
    write_start(run, ended)
    said = f"{stage}: {verdict}" + (f": {cause}" if cause else "")
    return code, "\n".join([said, *(cancel_followers(run, ended) if verdict == "failed" else [])])


def cancel_followers(run: Path, failed: JobStart) -> list[str]:
    """Records that the jobs which wait for `failed` never begin: Slurm cancels them; returns a line for each."""
    lines = []
    for job in followers(read_jobs(run), failed.job_id):
        if read_start(run, job.job_id, 0) is None:
            write_start(run, cancelled_start(job, failed, time.time()))
        lines.append(f"{job.stage} (job {job.job_id}) is cancelled: it waited for this job")
    return lines


def after_training(run: Path, environment: Mapping[str, str]) -> list[str]:
    """As `cancel_followers` for this start of the training, when it has come to an end without a finished run."""
    start = read_start(run, int(environment["SLURM_JOB_ID"]), int(environment.get("SLURM_RESTART_COUNT") or 0))
    if start is None or start.verdict not in ("failed", "stopped", "gave up"):
        return []
    return cancel_followers(run, start)


def last_words(output: Path) -> str:
    """Returns the last `error:` or `failed:` that a job printed, on one line; empty when there is none."""
    try:
        with output.open(encoding="utf-8", errors="replace") as file:
            lines = list(deque(file, maxlen=200))
    except OSError:
        return ""
    told = [number for number, line in enumerate(lines) if line.startswith(("error:", "failed:"))]
    if not told:
        return ""
    block = [lines[told[-1]].split(":", 1)[1].strip()]
    for line in lines[told[-1] + 1 :]:  # what goes on is indented
        if not line.startswith("  "):
            break
        block.append(line.strip())
    text = " ".join(part for part in block if part)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
