"""Stops a sweep: what waits leaves the queue, what trains saves first. Torch-free."""

from __future__ import annotations

from configs.errors import LaunchError
from launch import control
from launch.records import read_jobs
from launch.slurm_client import call
from launch.sweep import Sweep, outcomes


def stop_sweep(sweep: Sweep) -> list[str]:
    """Stops every point of a sweep and returns a sentence for each thing that was done.

    Nothing comes back by itself; `aisc runs retry` does not take up what was stopped, a point's own `resume` does.

    Raises:
        LaunchError: nothing of it runs or waits, or Slurm does not answer.
    """
    said = [said for job in read_jobs(sweep.path) if (said := _stop_waiting(job.job_id, is_search=job.array is None))]
    for one in outcomes(sweep):
        if one.state in ("running", "waiting"):
            try:
                said.append(control.stop(one.run.path))
            except LaunchError as error:
                if "nothing to stop" not in str(error):
                    raise
    if not said:
        raise LaunchError(f"{sweep.name}: nothing to stop, no point of it runs or waits")
    return said


def _stop_waiting(job_id: int, *, is_search: bool) -> str | None:
    """Takes the elements of an array that wait, or a search's controller, out of the queue; None when there is none."""
    states = "all" if is_search else "PENDING"
    try:
        found = call(("squeue", "--noheader", "--array", f"--states={states}", f"--jobs={job_id}", "--format=%T")).split()
    except LaunchError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    alive = [state for state in found if state in ("PENDING", "RUNNING", "CONFIGURING", "SUSPENDED")]
    if not alive:
        return None
    call(("scancel", *([] if is_search else ["--state=PENDING"]), str(job_id)))
    return f"job {job_id}: the search ends" if is_search else f"job {job_id}: {len(alive)} that waited cancelled"
