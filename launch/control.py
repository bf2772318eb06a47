"""Stops a run so that it saves first, and starts it again. Torch-free."""

from __future__ import annotations

import contextlib
from pathlib import Path

from configs import atomic
from configs.errors import LaunchError
from configs.runfolder import Attempt, RunFolder, request_stop, state_of
from launch.chain import FILE, ChainFolder
from launch.explain import cancelled_mark
from launch.live import Queue, ask_queue, jobs_of
from launch.records import read_jobs, read_starts
from launch.slurm_client import call
from launch.submit import resubmit

FAILED = ("failed", "killed", "superseded")


def stop(run: Path) -> str:
    """Stops a run and returns a sentence that says how.

    Ranks that train save first. A job that waits, or whose ranks have not come to the run yet, has nothing to save and is
    taken out of the queue. Neither comes back by itself.

    Raises:
        LaunchError: nothing of it runs or waits, or Slurm does not answer where it has to.
    """
    numbers = jobs_of(run)
    queue = ask_queue(numbers)
    stages = {job.job_id: job.stage for job in read_jobs(run)}
    works = [number for number in numbers if number in queue.jobs and queue.jobs[number].works]
    waits = [number for number in numbers if number in queue.jobs and queue.jobs[number].waits]
    said = []
    if attempt := _training(run, works, queue):
        request_stop(run)
        where = f" (job {works[0]})" if works else ""
        said.append(f"asked attempt {attempt.number}{where} to save and stop after its step; it is not requeued")
        works = []
    for number in [*works, *waits]:
        # The mark first: when we are killed between the two, the run's story is right or the job still there.
        atomic.write_file(cancelled_mark(run, number), "")
        call(("scancel", str(number)))
        state = "had not come to the run yet" if number in works else "was waiting"
        said.append(f"job {number} ({stages.get(number, 'train')}) {state}: cancelled")
    if said:
        return f"{run.name}: {'; '.join(said)}"
    if queue.note:
        raise LaunchError(f"{run.name}: whether a job of it waits is not known, {queue.note.removeprefix('from files only: ')}")
    status = state_of(run)
    raise LaunchError(f"{run.name}: nothing to stop, it is {'in no queue' if status.state == 'new' else status}")


def _training(run: Path, works: list[int], queue: Queue) -> Attempt | None:
    """Returns the attempt whose ranks are at work now and look for the stop file."""
    attempts = RunFolder(run).attempts()
    if not attempts or attempts[-1].exit_path.exists():
        return None
    if not works:
        # Outside Slurm, or the controller is away: then the stop file works all the same.
        waits_or_is_unknown = bool(queue.jobs) and not queue.note
        return attempts[-1] if state_of(run).state == "running" and not waits_or_is_unknown else None
    begun = attempts[-1].read_start() or {}
    starts = [start for start in read_starts(run) if start.job_id in works]
    newest = starts[-1] if starts else None
    is_of_it = newest is not None and (begun.get("job_id"), begun.get("job_restart")) == (newest.job_id, newest.restart)
    return attempts[-1] if is_of_it else None


def resume(run: Path) -> str:
    """Puts a run into the queue again and returns a sentence that says so; it goes on from its newest checkpoint.

    Raises:
        LaunchError: it is done, was never launched, is in the queue, or is a stage of a chain that a command submits or runs now.
    """
    if state_of(run).state == "done":
        raise LaunchError(f"{run.name}: it is done; to train it again: aisc launch ... --new")
    is_stage = (run.parent / FILE).is_file()
    with ChainFolder(run.parent).held() if is_stage else contextlib.nullcontext():
        job = resubmit(run)
    return f"{run.name}: submitted {job.job_id}; it goes on from its newest checkpoint"


def retry(run: Path) -> str:
    """As `resume`, of a run that failed.

    Raises:
        LaunchError: it did not fail.
    """
    starts = [start for start in read_starts(run) if start.stage == "train"]
    state = state_of(run).state
    has_failed = state in FAILED or bool(starts and starts[-1].verdict in ("failed", "gave up"))
    if not has_failed and state != "done":
        raise LaunchError(f"{run.name}: it has not failed ({state}); it goes on with: aisc runs resume {run.name}")
    return resume(run)
