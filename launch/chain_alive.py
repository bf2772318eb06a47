"""Which jobs of a chain wait or run: recorded ones, and those that a killed command submitted and did not live to record."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.chain import LAST
from configs.errors import LaunchError
from launch.chain import ChainFolder, StageState
from launch.records import SCRIPT_NAMES, Job, read_jobs, write_job
from launch.slurm_client import call
from launch.submit import ALIVE, queue_states

# The jobs of each kind of stage, in their order.
SCRIPTS = {"train": ("prepare", "train"), "evaluate": ("eval",), "release": ("export",)}


@dataclass(frozen=True, slots=True)
class Alive:
    """A job in the queue and what squeue calls its state."""

    job: Job
    state: str


def my_scripts() -> dict[Path, tuple[int, str]]:
    """Returns (job, state) of the user's jobs that wait or run, by the path of their script; one call."""
    lines = call(("squeue", "--noheader", "--me", "--format=%A|%T|%o")).splitlines()
    rows = [line.split("|", 2) for line in lines if line.count("|") >= 2]
    return {Path(command.strip()): (int(job_id), state) for job_id, state, command in rows if state in ALIVE}


def alive_jobs(run: Path, kind: str, scripts: Mapping[Path, tuple[int, str]], after: int | None = None) -> dict[str, Alive]:
    """Returns the jobs of a stage that wait or run, by the stage of their script; those not recorded yet are recorded.

    Args:
        run: the stage's run folder; kind: train, evaluate or release.
        scripts: what `my_scripts` found.
        after: the job for which one that was not recorded waits.
    """
    recorded = {job.job_id: job for job in read_jobs(run) if job.stage in SCRIPTS[kind]}
    states = queue_states(list(recorded))
    found = {recorded[number].stage: Alive(recorded[number], state) for number, state in states.items() if state in ALIVE}
    for name in SCRIPTS[kind]:
        number, state = scripts.get(run / SCRIPT_NAMES[name], (0, ""))
        if number and name not in found:
            found[name] = Alive(Job(number, name, time.time(), 1, 0, after), state)
            write_job(run, found[name].job)
        after = found[name].job.job_id if name in found else after
    return found


def check_told(chain: ChainFolder, before: Sequence[StageState], wanted: Sequence[StageState]) -> None:
    """Raises LaunchError when evaluate or release is in the queue and this command tells it something else, or drops it."""
    new = {stage.name: stage.identity for stage in wanted}
    for stage in before:
        if stage.kind in LAST and stage.identity != new.get(stage.name):
            for alive in _recorded_alive(chain, stage):
                raise LaunchError(
                    f"{chain.name}: stage {stage.name} is {alive.state.lower()} (job {alive.job.job_id}) and was told something else; "
                    f"nothing was submitted. Wait for it, or stop it first: aisc runs stop {chain.short}"
                )


def check_not_queued(chain: ChainFolder) -> None:
    """Raises LaunchError when a job of the chain waits or runs: a stage that ran here too would supersede it."""
    for stage in chain.info().stages:
        for alive in _recorded_alive(chain, stage):
            raise LaunchError(
                f"{chain.name}: stage {stage.name} is {alive.state.lower()} in the queue (job {alive.job.job_id}); nothing was started "
                f"here. Follow it: aisc runs show {chain.short}. Stop it: aisc runs stop {chain.short}"
            )


def _recorded_alive(chain: ChainFolder, stage: StageState) -> list[Alive]:
    jobs = {job.job_id: job for job in read_jobs(chain.path / stage.run) if job.stage in SCRIPTS[stage.kind]}
    return [Alive(jobs[number], state) for number, state in queue_states(list(jobs)).items() if state in ALIVE]
