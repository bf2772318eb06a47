"""What a job does on its own batch node: says that it begins, and at its end decides whether it goes back into the queue.

Only causes outside the run go back: a lost node, a limit, preemption, a cut network, a node that the pre-flight refused.
What would happen again (input, configuration, memory, a full disk, a bad loss) does not. Torch-free.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.compose import thaw
from configs.durations import parse_seconds
from configs.errors import LaunchError, UserError
from configs.runfolder import Attempt, RunFolder, read_json, saved_step
from launch.exclude import requeue_without
from launch.records import JobStart, read_start, read_starts, write_start
from launch.slurm_client import call

EXIT_DONE, EXIT_FAILED, EXIT_CONTINUE, EXIT_AVOID_NODE = 0, 1, 75, 76
OUTSIDE = ("lost", "hang")
# A controller that is being restarted is back within minutes; the ranks have saved, so waiting loses nothing.
PATIENCE_S = 600.0
_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Which start of which job this process is part of."""

    job_id: int
    restart: int
    stage: str
    nodes: list[str]
    gpus_per_node: int


def place_of(environment: Mapping[str, str], stage: str, gpus_per_node: int) -> Place:
    """Returns this process's place from Slurm's variables.

    Raises:
        UserError: this is no job of Slurm.
    """
    if "SLURM_JOB_ID" not in environment:
        raise UserError("aisc job: for the scripts that aisc launch writes; $SLURM_JOB_ID is not set here")
    names = call(("scontrol", "show", "hostnames", environment.get("SLURM_JOB_NODELIST", ""))).split()
    restart = int(environment.get("SLURM_RESTART_COUNT", "0"))
    return Place(int(environment["SLURM_JOB_ID"]), restart, stage, names, gpus_per_node)


def begin(run: Path, environment: Mapping[str, str]) -> float:
    """Records that a start of the training begins; returns when Slurm will end it, in seconds since 1970.

    Raises:
        LaunchError: the last starts of this job made no progress; no more are made.
    """
    config = thaw((run / "launch.yaml").read_text(encoding="utf-8"))
    place = place_of(environment, "train", _gpus_on_node(environment))
    step = saved_step(run)
    start = JobStart(
        job_id=place.job_id,
        stage=place.stage,
        restart=place.restart,
        began=began_at(environment),
        nodes=place.nodes,
        gpus_per_node=place.gpus_per_node,
        step=step,
    )
    in_vain = starts_in_vain(run, place.job_id, step)
    if in_vain >= config.cluster.max_restarts:
        cause = (
            f"{in_vain} starts of job {place.job_id} came no further than step {step}; the run ends here. "
            f"Look why (aisc runs show {run.name}), then: aisc runs resume {run.name}"
        )
        write_start(run, dataclasses.replace(start, ended=time.time(), code=EXIT_FAILED, verdict="gave up", cause=cause))
        raise LaunchError(cause)
    write_start(run, start)
    return end_time(environment) or start.began + parse_seconds(config.cluster.time)


def began_at(environment: Mapping[str, str]) -> float:
    """Returns when the job's script began, as it says itself, in seconds since 1970; now, when it does not."""
    now = time.time()
    try:
        said = float(environment.get("AISC_BEGAN", ""))
    except ValueError:
        return now
    return min(said, now)


def starts_in_vain(run: Path, job_id: int, step: int) -> int:
    """Returns how many of the job's last starts began at `step`, as this one does: they saved nothing.

    A start that only found a node to avoid is not counted: the next one runs elsewhere.
    """
    count = 0
    for start in reversed([start for start in read_starts(run) if start.job_id == job_id and start.stage == "train"]):
        if start.step != step:
            break
        count += start.verdict != "excluded"
    return count


def end(run: Path, code: int, environment: Mapping[str, str]) -> tuple[int, str]:
    """Records how this start ended and requeues the job when the cause lies outside the run.

    Returns the job's exit code, and a line for its output.

    Args:
        run: the run's folder.
        code: of srun: the highest of the ranks'.
        environment: Slurm's variables.
    """
    job_id, restart = int(environment["SLURM_JOB_ID"]), int(environment.get("SLURM_RESTART_COUNT", "0"))
    start = read_start(run, job_id, restart)
    if start is None:
        raise LaunchError(f"job {job_id}, start {restart}: its beginning was not recorded in {run / 'jobs'}")
    ending = judge(run, start, code)
    write_start(run, dataclasses.replace(start, ended=time.time(), code=code, **dataclasses.asdict(ending)))
    said = f"{ending.verdict}: {ending.cause}" if ending.cause else ending.verdict
    if ending.verdict == "finished":
        return EXIT_DONE, said
    if ending.verdict not in ("requeued", "excluded"):
        return code or EXIT_FAILED, said
    again = [node for node in _excluded_before(run, start) if node not in ending.excluded]
    refusal = requeue(queue_name(environment), restart, ending.excluded, again)
    if refusal:
        said = f"{ending.cause}; not requeued: {refusal}"
        write_start(run, dataclasses.replace(start, ended=time.time(), code=code, verdict="stopped", cause=said))
    return EXIT_CONTINUE, said


@dataclass(frozen=True, slots=True)
class Ending:
    """What a start came to; see JobStart."""

    verdict: str
    cause: str = ""
    excluded: list[str] = dataclasses.field(default_factory=list)


def judge(run: Path, start: JobStart, code: int) -> Ending:
    """Returns the verdict on a start from what the pre-flight and the attempt left, and from srun's exit code."""
    # srun's code may be that of a rank which had to be killed; what the pre-flight left says what it was.
    check = read_json(run / "jobs" / f"{start.job_id}.{start.restart}.check.json") or {}
    if code != 0 and check.get("code") == EXIT_AVOID_NODE:
        already = [node for node in _excluded_before(run, start) if node not in check["again"]]
        return Ending("excluded", str(check["cause"]), list(dict.fromkeys([*already, *check["avoid"]])))
    if code != 0 and check.get("code"):
        return Ending("failed", str(check["cause"]))
    attempt = attempt_of(run, start)
    ended = read_json(attempt.exit_path) if attempt is not None else None
    if ended is None:
        return _judge_code(code, attempt)
    state, kind, cause = str(ended["state"]), str(ended.get("kind", "")), str(ended.get("cause", ""))
    if state == "done":
        return Ending("finished")
    if state == "stopped":
        return Ending("stopped" if kind == "user" else "requeued", cause)
    if state == "superseded":
        return Ending("stopped", cause)
    return Ending("requeued" if kind in OUTSIDE else "failed", cause)


def _excluded_before(run: Path, start: JobStart) -> list[str]:
    """Returns the nodes that earlier starts of this job have excluded."""
    others = [other for other in read_starts(run) if other.job_id == start.job_id and other.restart < start.restart]
    return list(dict.fromkeys(node for other in others for node in other.excluded))


def _judge_code(code: int, attempt: Attempt | None) -> Ending:
    """The ranks left no word: a signal ended them (128 + its number), or they never came to an attempt."""
    if code == 0 and attempt is None:  # `already finished`
        return Ending("finished")
    if code == 0 or code == EXIT_CONTINUE or code > 128:
        return Ending("requeued", f"the ranks ended without a word (exit code {code}): a signal, or a lost node")
    return Ending("failed", f"exit code {code} before the run could begin; the job's output says why")


def attempt_of(run: Path, start: JobStart) -> Attempt | None:
    """Returns the newest attempt that was made by this start of this job."""
    for attempt in reversed(RunFolder(run).attempts()):
        begun: dict[str, Any] = attempt.read_start() or {}
        if begun.get("job_id") == start.job_id and begun.get("job_restart") == start.restart:
            return attempt
    return None


def requeue(job: str, restart: int, excluded: list[str], again: list[str]) -> str | None:
    """Puts this job (its `queue_name`) back into the queue; returns why not, when somebody has ended it on purpose.

    A controller that does not answer is waited for. Under preemption or an administrator's requeue Slurm has counted the
    next start before this one is over: then nothing is left to do, though the job is COMPLETING as after scancel.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            state = job_fields(job)
            if state.get("JobState") in ("PENDING", "REQUEUED") or int(state.get("Restarts", restart)) > restart:
                return None
            if state.get("JobState") != "RUNNING":
                return f"the job is {state.get('JobState')}"
            if excluded:
                return requeue_without(job, excluded, again)
            call(("scontrol", "requeue", job))
            return None
        except LaunchError as error:
            if time.monotonic() > deadline:
                return str(error)
            time.sleep(_AGAIN_S)


def queue_name(environment: Mapping[str, str]) -> str:
    """Returns how scontrol is told this very job: an element of an array by both numbers, `481516_3`.

    The array's last element has the array's own number as its SLURM_JOB_ID: by that, all elements would be meant.
    """
    array, task = environment.get("SLURM_ARRAY_JOB_ID", ""), environment.get("SLURM_ARRAY_TASK_ID", "")
    return f"{array}_{task}" if array and task else environment["SLURM_JOB_ID"]


def job_fields(job: str) -> dict[str, str]:
    """Returns what `scontrol show job` says, by name."""
    words = call(("scontrol", "--oneliner", "show", "job", job)).split()
    return dict(word.partition("=")[::2] for word in words if "=" in word)


def end_time(environment: Mapping[str, str]) -> float | None:
    """Returns when Slurm will end the job, in seconds since 1970; None when it does not say."""
    if environment.get("SLURM_JOB_END_TIME", "").isdigit():
        return float(environment["SLURM_JOB_END_TIME"])
    try:
        text = job_fields(queue_name(environment)).get("EndTime", "")
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (LaunchError, ValueError):
        return None


def _gpus_on_node(environment: Mapping[str, str]) -> int:
    return len([name for name in environment.get("SLURM_JOB_GPUS", "").split(",") if name.strip()])
