"""From a checked request to a job in the queue: never twice, never half. Torch-free."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import atomic
from configs.errors import LaunchError
from configs.runfolder import state_of
from configs.site import Site
from launch.records import SCRIPT_NAMES, Job, jobs_folder, read_jobs, write_job
from launch.slurm_client import call

# A submission takes seconds; a claim older than this was left by one that was killed.
CLAIM_LASTS_S = 300.0
ALIVE = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SIGNALING", "STAGE_OUT")


@dataclass(frozen=True, slots=True)
class Script:
    """One job of a chain: its stage, its text, what it asks for."""

    stage: str
    text: str
    nodes: int
    gpus_per_node: int


def aisc_command() -> tuple[str, ...]:
    """Returns how nodes call this program: by absolute paths, so that no folder of the user can come before it."""
    for script in (Path(sys.argv[0]).resolve(), Path(sys.executable).with_name("aisc")):
        if script.name == "aisc" and os.access(script, os.X_OK):
            return (str(script),)
    return (sys.executable, "-m", "cli.main")


def queue_states(job_ids: Sequence[int]) -> dict[int, str]:
    """Returns the states of those jobs that the queue still knows."""
    found = {}
    for job_id in job_ids:
        try:
            text = call(("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T"))
        except LaunchError as error:
            if "Invalid job id" in str(error):
                continue
            raise
        if text.strip():
            found[job_id] = text.split()[0]
    return found


def check_free(run: Path) -> None:
    """Raises LaunchError when a job of this run waits or runs, or a process of this machine trains it."""
    stages = {job.job_id: job.stage for job in read_jobs(run)}
    known = queue_states(list(stages))
    alive = {**{job_id: state for job_id, state in known.items() if state in ALIVE}, **unrecorded(run)}
    for job_id, state in alive.items():
        raise LaunchError(
            f"{run.name}: job {job_id} ({stages.get(job_id, 'submitted by hand')}) of this run is {state.lower()}; nothing was "
            f"submitted. Follow it: aisc runs follow {run.name}. Stop it: aisc runs stop {run.name}"
        )
    status = state_of(run)
    if status.state == "running" and "on this machine" in status.cause:
        raise LaunchError(f"{run.name}: {status.cause} trains this run; nothing was submitted")


def unrecorded(run: Path) -> dict[int, str]:
    """Returns the states of jobs in the queue whose script lies in `run`, recorded or not.

    A script may have been submitted by hand, or sbatch may have given up waiting for an answer after all had gone well.
    """
    lines = call(("squeue", "--noheader", "--me", f"--name={run.name}", "--format=%A|%T|%o")).splitlines()
    rows = [line.split("|", 2) for line in lines if line.count("|") >= 2]
    return {int(job_id): state for job_id, state, command in rows if Path(command).parent == run}


@contextlib.contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Holds the right to submit `run`: of two launches at once, one goes on and the other is refused.

    Raises:
        LaunchError: another launch is submitting this run.
    """
    jobs_folder(run).mkdir(mode=0o700, parents=True, exist_ok=True)
    path = jobs_folder(run) / "submitting"
    with contextlib.suppress(FileNotFoundError):
        if time.time() - path.stat().st_mtime > CLAIM_LASTS_S:
            path.unlink()
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        raise LaunchError(f"{run.name}: another aisc launch is submitting this run; nothing was submitted here") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def check_visible(run: Path, site: Site) -> None:
    """Raises LaunchError when the site says which folders all nodes share, and the run's is in none of them."""
    shared = [Path(folder) for folder in site.storage.shared]
    if shared and not any(run.is_relative_to(folder) for folder in shared):
        places = ", ".join(map(str, shared))
        raise LaunchError(
            f"run.dir={run.parent}: the nodes do not see it; {site.path} names {places} as shared. "
            f"Give a folder there: run.dir={site.storage.runs or shared[0]}"
        )


def try_out(script: str) -> str:
    """Asks Slurm whether the script could run, without submitting it; returns its estimate of the start, may be empty.

    Raises:
        LaunchError: no such partition, account or QOS, or no node can satisfy it.
    """
    try:
        told = call(("sbatch", "--test-only"), given=script, keeps_stderr=True)
    except LaunchError as error:
        raise LaunchError(explain_refusal(str(error))) from error
    found = re.search(r"to start at (\S+)", told)
    return found[1] if found else ""


def explain_refusal(said: str) -> str:
    """Returns sbatch's refusal with what the user can do."""
    remedies = {
        "account": "see yours: sacctmgr show associations user=$USER format=account,partition,qos; then cluster.account=NAME",
        "partition": "see what there is: sinfo -s; then cluster.partition=NAME",
        "qos": "see yours: sacctmgr show associations user=$USER format=account,qos; then cluster.qos=NAME",
        "node count": "fewer cluster.nodes, or another cluster.partition (sinfo -s)",
        "node configuration": "no node has that much: cluster.gpus_per_node, cluster.cpus_per_rank, cluster.memory (sinfo -o '%P %D %c %m %G')",
        "processors": "no node has that many cores: cluster.cpus_per_rank times cluster.ranks_per_node (sinfo -o '%P %D %c')",
        "time limit": "a shorter cluster.time; the run continues by itself in a further start (sinfo -o '%P %l')",
        "reservation": "see them: scontrol show reservation",
    }
    lower = said.lower()
    remedy = next((text for word, text in remedies.items() if word in lower), "nothing was submitted")
    return f"{said}; {remedy}"


def submit(run: Path, launch_yaml: str, scripts: Sequence[Script]) -> list[Job]:
    """Writes the scripts and submits them, each after the one before it; when one is refused the others are taken back.

    Raises:
        LaunchError: Slurm refused; then nothing of this launch is in the queue.
    """
    atomic.write_file(run / "launch.yaml", launch_yaml)
    for script in scripts:
        atomic.write_file(run / SCRIPT_NAMES[script.stage], script.text, mode=0o700)
    jobs: list[Job] = []
    try:
        for script in scripts:
            after = jobs[-1].job_id if jobs else None
            wait = (f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes") if after else ()
            told = call(("sbatch", "--parsable", *wait, str(run / SCRIPT_NAMES[script.stage])))
            job_id = int(told.strip().split(";")[0])
            jobs.append(Job(job_id, script.stage, time.time(), script.nodes, script.gpus_per_node, after))
            write_job(run, jobs[-1])
    except (LaunchError, OSError, ValueError) as error:
        take_back(jobs)
        if isinstance(error, LaunchError):
            raise LaunchError(explain_refusal(str(error))) from error
        raise
    return jobs


def take_back(jobs: Sequence[Job]) -> None:
    """Cancels jobs of a launch that could not be completed."""
    for job in reversed(jobs):
        with contextlib.suppress(LaunchError):
            call(("scancel", str(job.job_id)))


def resubmit(run: Path) -> Job:
    """Puts the training of a run that was launched before into the queue again, with the script it had.

    Raises:
        LaunchError: it was never launched, or is in the queue already.
    """
    path = run / SCRIPT_NAMES["train"]
    before = [job for job in read_jobs(run) if job.stage == "train"]
    if not path.is_file() or not before:
        raise LaunchError(f"{run.name}: it was not launched through Slurm; the command that started it continues it")
    with claimed(run):
        check_free(run)
        job_id = int(call(("sbatch", "--parsable", str(path))).strip().split(";")[0])
        job = Job(job_id, "train", time.time(), before[-1].nodes, before[-1].gpus_per_node)
        write_job(run, job)
    return job
