"""What a run folder knows of its jobs: one file per submission, one per start. Nothing is appended, nothing is shared.

    runs/NAME/launch.yaml            the configuration as it was when it was submitted
    runs/NAME/launch.sbatch          the script of the training; prepare.sbatch, eval.sbatch, export.sbatch beside it
    runs/NAME/plan.json              what was planned
    runs/NAME/jobs/481517.json       a submission
    runs/NAME/jobs/481517.0.json     its first start, .1 the first requeue: written by the job itself
    runs/NAME/jobs/481517.out        what the job printed, every start
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from configs import atomic
from configs.runfolder import read_json

SCRIPT_NAMES = {"prepare": "prepare.sbatch", "train": "launch.sbatch", "eval": "eval.sbatch", "export": "export.sbatch"}


@dataclass(frozen=True, slots=True)
class Job:
    """One submission. Times are seconds since 1970; `after` is the job that it waits for.

    `nodes`, `gpus_per_node`: what was asked for; `array`: `0-5%2` for a sweep's points.
    """

    job_id: int
    stage: str
    submitted: float
    nodes: int
    gpus_per_node: int
    after: int | None = None
    array: str | None = None
    restarted_from: int | None = None


@dataclass(frozen=True, slots=True)
class JobStart:
    """One start of a job, written by the job: at its beginning, again after the pre-flight, again at its end.

    Attributes:
        restart: SLURM_RESTART_COUNT, 0 the first time.
        began, checked, ended: seconds since 1970; None: not come so far.
        nodes: host names.
        step: the newest saved step when it began.
        code: exit code of the ranks together.
        verdict: finished, requeued, excluded, stopped, failed, gave up; None while it runs or after a kill.
        cause: one sentence.
        excluded: nodes that the next start avoids.
    """

    job_id: int
    stage: str
    restart: int
    began: float
    nodes: list[str]
    gpus_per_node: int
    step: int = 0
    checked: float | None = None
    ended: float | None = None
    code: int | None = None
    verdict: str | None = None
    cause: str = ""
    excluded: list[str] = field(default_factory=list)


def jobs_folder(run: Path) -> Path:
    """Returns the folder of the job records of `run`."""
    return run / "jobs"


def write_job(run: Path, job: Job) -> None:
    """Records a submission."""
    jobs_folder(run).mkdir(mode=0o700, exist_ok=True)
    atomic.write_json(jobs_folder(run) / f"{job.job_id}.json", asdict(job))


def write_start(run: Path, start: JobStart) -> None:
    """Records a start, or what has become of it."""
    jobs_folder(run).mkdir(mode=0o700, exist_ok=True)
    atomic.write_json(jobs_folder(run) / f"{start.job_id}.{start.restart}.json", asdict(start))


def read_jobs(run: Path) -> list[Job]:
    """Returns the submissions of a run, oldest first."""
    return sorted((Job(**values) for values in _read(run, dots=1)), key=lambda job: (job.submitted, job.job_id))


def read_starts(run: Path) -> list[JobStart]:
    """Returns the starts of all jobs of a run, oldest first."""
    return sorted((JobStart(**values) for values in _read(run, dots=2)), key=lambda start: start.began)


def read_start(run: Path, job_id: int, restart: int) -> JobStart | None:
    """Returns one start; None when the job has not begun."""
    values = read_json(jobs_folder(run) / f"{job_id}.{restart}.json")
    return None if values is None else JobStart(**values)


def _read(run: Path, dots: int) -> list[dict[str, Any]]:
    paths = [path for path in jobs_folder(run).glob("[0-9]*.json") if path.name.count(".") == dots]
    return [values for path in paths if (values := read_json(path)) is not None]
