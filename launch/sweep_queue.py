"""A sweep's jobs: a grid is one array, a search's trial is one job. Nothing is submitted twice. Torch-free."""

from __future__ import annotations

import dataclasses
import getpass
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from configs import atomic
from configs.errors import LaunchError
from configs.runfolder import RunFolder, read_json
from launch.records import Job, jobs_folder, read_jobs, read_starts, write_job
from launch.slurm_client import call
from launch.submit import ALIVE, Script, claimed, explain_refusal, queue_states, submit
from launch.sweep import Outcome, Sweep, forget_refusal
from launch.sweep_grid import Point
from launch.sweep_script import ARRAY_SCRIPT, SEARCH_SCRIPT, spell_array

# A controller ends so long before its job does, or half of its time when that is shorter.
MARGIN_S = 60.0


def submit_array(sweep: Sweep, numbers: Sequence[int], throttle: int, *, nodes: int, gpus_per_node: int) -> Job:
    """Submits points as one array, with the script in the sweep's folder.

    Raises:
        LaunchError: Slurm refused, or one of them waits or runs already.
    """
    with claimed(sweep.path):
        alive = alive_points(sweep) & set(numbers)
        if alive:
            raise LaunchError(f"{sweep.name}: point {min(alive)} waits or runs already; nothing was submitted")
        for number in numbers:
            forget_refusal(sweep.run_of(number))
        array = spell_array(numbers, throttle)
        job_id = _sbatch(f"--array={array}", str(sweep.path / ARRAY_SCRIPT))
        job = Job(job_id, "train", time.time(), nodes, gpus_per_node, array=array)
        write_job(sweep.path, job)
    return job


def submit_search(sweep: Sweep) -> Job:
    """Submits a search's controller, with the script in its folder.

    Raises:
        LaunchError: Slurm refused, or it waits or runs already.
    """
    with claimed(sweep.path):
        states = queue_states([job.job_id for job in read_jobs(sweep.path)])
        for job_id, state in states.items():
            if state in ALIVE:
                raise LaunchError(f"{sweep.name}: its controller, job {job_id}, is {state.lower()}; nothing was submitted")
        job = Job(_sbatch(str(sweep.path / SEARCH_SCRIPT)), "search", time.time(), 1, 0)
        write_job(sweep.path, job)
    return job


def _sbatch(*words: str) -> int:
    try:
        return int(call(("sbatch", "--parsable", *words)).strip().split(";")[0])
    except LaunchError as error:
        raise LaunchError(explain_refusal(str(error))) from error


def alive_points(sweep: Sweep) -> set[int]:
    """Returns the points of a grid that wait or run in one of its arrays."""
    found: set[int] = set()
    for job in read_jobs(sweep.path):
        if job.array is None:
            continue
        try:
            lines = call(("squeue", "--noheader", "--array", "--states=all", f"--jobs={job.job_id}", "--format=%K %T"))
        except LaunchError as error:
            if "Invalid job id" in str(error):
                continue
            raise
        for line in lines.splitlines():
            number, _, state = line.strip().partition(" ")
            if state in ALIVE and number.isdigit():
                found.add(int(number))
    return found


def lost_points(sweep: Sweep, found: Sequence[Outcome]) -> list[int]:
    """Returns the points of a grid that failed or are gone from the queue without an end; not those a user stopped."""
    gone = [one for one in found if one.state in ("waiting", "stopped") and not stopped_by_user(one.run)]
    failed = [one.point.number for one in found if one.state == "failed"]
    alive = alive_points(sweep) if gone or failed else set()
    return sorted({*failed, *(one.point.number for one in gone)} - alive)


def stopped_by_user(run: RunFolder) -> bool:
    """True when somebody asked this run to stop: that is no failure."""
    attempts = run.attempts()
    ended = read_json(attempts[-1].exit_path) if attempts else None
    return ended is not None and ended["state"] == "stopped" and ended.get("kind") == "user"


def with_lost(sweep: Sweep, found: list[Outcome]) -> list[Outcome]:
    """Returns the outcomes with what the queue knows better: a point whose job is gone does not wait, it has failed."""
    if not all(one.state in ("done", "pruned", "failed") for one in found):
        try:
            lost = lost_points(sweep, found)
        except LaunchError:  # no Slurm here, or no answer: what files say is what there is
            return found
        cause = "its job is gone: cancelled, or ended without a word"
        return [
            dataclasses.replace(one, state="failed", cause=cause) if one.point.number in lost and one.state != "failed" else one
            for one in found
        ]
    return found


class SlurmQueue:
    """Trials as jobs of their own; `make` writes what is submitted for a run.

    Args:
        sweep: the search.
        capacity: trials at once.
        make: from a trial and its run's folder to the script.
        ends: when this controller's own job ends, in seconds since 1970; None: never.
    """

    def __init__(self, sweep: Sweep, capacity: int, make: Callable[[Point, Path], Script], ends: float | None) -> None:
        self.capacity = capacity
        self._sweep = sweep
        self._make = make
        now = time.time()
        self._ends = None if ends is None else now + max(0.5 * (ends - now), ends - now - MARGIN_S)

    @property
    def stopping(self) -> bool:
        """True when this controller's job has little time left."""
        return self._ends is not None and time.time() > self._ends

    def start(self, point: Point) -> None:
        """Submits a trial; one that was submitted by a controller that was killed before it wrote so is found and kept."""
        run = self._sweep.run_of(point.number)
        if read_jobs(run.path):
            return
        script = self._make(point, run.path)
        job_id = submitted_as(run)
        if job_id is not None:
            write_job(run.path, Job(job_id, "train", time.time(), script.nodes, script.gpus_per_node))
            return
        # No claim: this controller is the only one (controller.lock), and one that was killed would leave a claim behind.
        jobs_folder(run.path).mkdir(mode=0o700, exist_ok=True)
        submit(run.path, (run.path / "launch.yaml").read_text(encoding="utf-8"), [script])

    def is_over(self, point: Point) -> bool:
        """True when none of the trial's jobs waits or runs; a controller that does not answer is no such sign."""
        jobs = [job.job_id for job in read_jobs(self._sweep.run_of(point.number).path)]
        try:
            return not any(state in ALIVE for state in queue_states(jobs).values())
        except LaunchError:
            return False


def submitted_as(run: RunFolder) -> int | None:
    """Returns the job of a run that nobody has written down: by what its start wrote, or by its name in the queue."""
    starts = read_starts(run.path)
    if starts:
        return starts[-1].job_id
    told = call(("squeue", "--noheader", f"--name={run.name}", f"--user={getpass.getuser()}", "--format=%A"))
    return int(told.split()[0]) if told.strip() else None


def write_scripts(sweep: Sweep, name: str, text: str) -> Path:
    """Writes a script into the sweep's folder and returns its path."""
    atomic.write_file(sweep.path / name, text, mode=0o700)
    return sweep.path / name
