"""A chain through Slurm: each stage's jobs wait for the stage before; nothing is submitted twice. Torch-free.

The script of a stage verifies what it takes before anything else, and says at its end, wherever that is, what has become of
it. What Slurm cancels because of a stage that failed is recorded in the run folders of the stages behind it.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import atomic
from configs.errors import LaunchError
from configs.runfolder import RunFolder
from launch.chain import ChainFolder, StageState, end, is_over
from launch.chain_alive import Alive, alive_jobs, my_scripts
from launch.chain_states import JOB_STAGES, last_start
from launch.records import SCRIPT_NAMES, Job, JobStart, jobs_folder, read_jobs, read_start, write_job, write_start
from launch.slurm import Launch, header, rank_words, setting_up, srun_words
from launch.slurm_client import call
from launch.stage_job import begin_stage, end_stage
from launch.stages import cancelled_start, followers
from launch.submit import Script, check_free, explain_refusal, take_back
from launch.sweep import last_words

WHAT = {"eval": "scores the chain's model", "export": "releases the chain's model"}


@dataclass(frozen=True, slots=True)
class StageJobs:
    """The jobs of one stage: its run folder, the frozen configuration, the scripts in the order of their jobs."""

    name: str
    kind: str
    run: Path
    launch_yaml: str
    scripts: list[Script]

    @property
    def key(self) -> str:
        """The job for which the next stage waits."""
        return JOB_STAGES[self.kind]


def with_hand_on(launch: Launch, chain: Path, stage: str) -> Launch:
    """Returns the launch whose script begins by verifying what the stage takes and, once it has, tells at its end how it ended.

    The end is told by a trap: whichever line the script leaves at, once, with its exit code kept. What `cluster.setup` wants
    done at its end is done after that.
    """
    where = f"{shlex.quote(str(chain))} {shlex.quote(stage)}"
    told = f'ended=$?; "${{AISC[@]}}" chain end {where} "$ended"; eval "set -- $AISC_AT_EXIT"; (exit "$ended"); eval "${{3:-}}"; exit "$ended"'
    lines = (
        "# Verifies the model that this stage takes.",
        f'"${{AISC[@]}}" chain begin {where} || exit',
        "# Tells the chain, and the stages that wait for this one, how this script ended, wherever it does.",
        "AISC_AT_EXIT=$(trap -p EXIT)",
        f"trap {shlex.quote(told)} EXIT",
    )
    return dataclasses.replace(launch, setup=(*launch.setup, *lines))


def render_verb(launch: Launch, stage: str, words: Sequence[str]) -> str:
    """Returns the script of evaluate or release: one verb on the last training's run."""
    call_words = f"{srun_words(launch)} {rank_words(launch)} {words[0]} \"$AISC_RUN\" {shlex.join(words[1:])}".rstrip()
    return "\n".join(
        [
            *header(launch, f"{stage}: {WHAT[stage]}", launch_by_hand=SCRIPT_NAMES[stage]),
            *setting_up(launch),
            "",
            "# Records this start.",
            f'"${{AISC[@]}}" job stage-begin "$AISC_RUN" {stage} || exit',
            "code=0",
            f"{call_words} || code=$?",
            "",
            "# Says how it ended; when it failed, Slurm cancels the jobs that wait for it.",
            f'"${{AISC[@]}}" job stage-end "$AISC_RUN" {stage} "$code"',
            "",
        ]
    )


def submit_chain(chain: ChainFolder, stages: Sequence[StageJobs]) -> dict[str, tuple[int, bool]]:
    """Submits the jobs of the stages that are not in the queue; returns each stage's job and whether it is new.

    Behind the first stage that has no job every job is new: one that is there waits for a job that did not end well, and
    Slurm is about to cancel it.

    Args:
        chain: its folder, held by this process.
        stages: those that are not done, in their order.

    Raises:
        LaunchError: Slurm refused one; then nothing of this command is in the queue, and chain.json is as it was.
    """
    alive = look(stages)
    # Read after the queue: a training that has left it since it was looked at is over by its files.
    kept = list(itertools.takewhile(lambda stage: stage.key in alive[stage.name] or _is_over(chain, stage), stages))
    rest = stages[len(kept) :]
    for stage in rest[1:]:
        _take_out(chain, stage, alive[stage.name])
    found = {stage.name: (alive[stage.name][stage.key].job.job_id, False) for stage in kept if stage.key in alive[stage.name]}
    new: list[Job] = []
    before = chain.info().stages
    try:
        after = found[kept[-1].name][0] if kept and kept[-1].name in found else None
        for stage in rest:
            prepared = alive[stage.name].get("prepare")
            if stage.kind == "train" and prepared is None:
                check_free(stage.run)
            # Before its job is there: the job itself says next that it runs, maybe at once.
            chain.change(stage.name, state="waiting", cause="", began=None, ended=None, made={})
            scripts = stage.scripts if prepared is None else [script for script in stage.scripts if script.stage == stage.key]
            wait = after if prepared is None else prepared.job.job_id
            after = submit_after(stage.run, stage.launch_yaml, scripts, wait, new)[-1].job_id
            found[stage.name] = (after, True)
    except (LaunchError, OSError, ValueError) as error:
        take_back(new)
        for state in before:
            if state.name in [stage.name for stage in rest]:
                chain.change(state.name, state=state.state, cause=state.cause, began=state.began, ended=state.ended, made=state.made)
        if isinstance(error, LaunchError):
            raise LaunchError(explain_refusal(str(error))) from error
        raise
    return found


def look(stages: Sequence[StageJobs]) -> dict[str, dict[str, Alive]]:
    """Returns the jobs of each stage that wait or run, by the stage of their script."""
    scripts, after = my_scripts(), None
    found: dict[str, dict[str, Alive]] = {}
    for stage in stages:
        found[stage.name] = alive_jobs(stage.run, stage.kind, scripts, after)
        after = found[stage.name][stage.key].job.job_id if stage.key in found[stage.name] else None
    return found


def _is_over(chain: ChainFolder, stage: StageJobs) -> bool:
    return stage.kind == "train" and is_over(chain, chain.stage(stage.name))


def _take_out(chain: ChainFolder, stage: StageJobs, alive: dict[str, Alive]) -> None:
    """Cancels the jobs of a stage that wait for one which did not end well; empties `alive`.

    Raises:
        LaunchError: one works, though a stage before it has to run first.
    """
    for one in alive.values():
        if one.state != "PENDING":
            raise LaunchError(
                f"{chain.name}: stage {stage.name} is {one.state.lower()} (job {one.job.job_id}), though a stage before it is not done; "
                f"nothing was submitted. Stop it: aisc runs stop {chain.short}"
            )
        call(("scancel", str(one.job.job_id)))
    alive.clear()


def submit_after(run: Path, launch_yaml: str, scripts: Sequence[Script], after: int | None, new: list[Job]) -> list[Job]:
    """Writes scripts and submits them, the first after job `after`, each other one after the one before; adds them to `new`."""
    atomic.write_file(run / "launch.yaml", launch_yaml)
    jobs_folder(run).mkdir(mode=0o700, exist_ok=True)
    jobs: list[Job] = []
    for script in scripts:
        path = run / SCRIPT_NAMES[script.stage]
        atomic.write_file(path, script.text, mode=0o700)
        wait = (f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes") if after else ()
        job_id = int(call(("sbatch", "--parsable", *wait, str(path))).strip().split(";")[0])
        jobs.append(Job(job_id, script.stage, time.time(), script.nodes, script.gpus_per_node, after))
        new.append(jobs[-1])
        write_job(run, jobs[-1])
        after = job_id
    return jobs


def refuse_job(chain: ChainFolder, name: str, cause: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """Records that the stage of this job does not begin; its error is printed already. Returns exit code and what to say."""
    stage = chain.stage(name)
    run = chain.path / stage.run
    begin_stage(run, JOB_STAGES[stage.kind], environment)
    code, said = end_stage(run, JOB_STAGES[stage.kind], 2, environment)
    end(chain, name, "failed", cause)
    return code, "\n".join([said, *cancel_behind(chain, stage)])


def end_job(chain: ChainFolder, name: str, code: int | None, environment: Mapping[str, str]) -> str:
    """Records how the stage of this job ended, and on failure that the stages behind it never begin.

    Args:
        chain: its folder; name: of the stage.
        code: exit code of the job's script; None: not said.
        environment: Slurm's variables.
    """
    stage = chain.stage(name)
    run, key = chain.path / stage.run, JOB_STAGES[stage.kind]
    place = int(environment["SLURM_JOB_ID"]), int(environment.get("SLURM_RESTART_COUNT") or 0)
    start = read_start(run, *place)
    if code and (start is None or start.verdict is None):  # the script ended before it, or without, saying so itself
        if start is None:
            begin_stage(run, key, environment)
        end_stage(run, key, code, environment)
        start = read_start(run, *place)
    if start is None or start.verdict is None:
        return f"stage {name}: its end was not recorded"
    if start.verdict == "finished":
        end(chain, name, "done")
        return f"stage {name}: done"
    if start.verdict not in ("failed", "stopped", "gave up"):
        return f"stage {name}: {start.verdict}"
    end(chain, name, "stopped" if start.verdict == "stopped" else "failed", cause_of(run, start))
    return "\n".join([f"stage {name}: {start.verdict}", *cancel_behind(chain, stage, start)])


def cause_of(run: Path, start: JobStart) -> str:
    """Returns why a job failed; of a training that never came to an attempt its output says it, not its record."""
    path = jobs_folder(run) / f"{start.job_id}.out"
    if RunFolder(run).attempts() or not path.exists():
        return start.cause
    return last_words(path, besides=start.cause).partition("\n")[0] or start.cause


def cancel_behind(chain: ChainFolder, stage: StageState, start: JobStart | None = None) -> list[str]:
    """Records that the jobs of later stages which wait for this one never begin: Slurm cancels them.

    Args:
        chain: its folder; stage: which one failed.
        start: of its job; None: the newest.
    """
    start = start or last_start(chain.path / stage.run, JOB_STAGES[stage.kind])
    if start is None:
        return []
    states = chain.info().stages
    later = states[[one.name for one in states].index(stage.name) + 1 :]
    runs = {job.job_id: chain.path / one.run for one in later for job in read_jobs(chain.path / one.run)}
    jobs = [job for folder in dict.fromkeys(runs.values()) for job in read_jobs(folder)]
    failed = dataclasses.replace(start, stage=f"stage {stage.name}", cause=cause_of(chain.path / stage.run, start))
    lines = []
    for job in followers(sorted(jobs, key=lambda job: job.job_id), start.job_id):
        if read_start(runs[job.job_id], job.job_id, 0) is None:
            write_start(runs[job.job_id], cancelled_start(job, failed, time.time()))
        lines.append(f"{runs[job.job_id].name}: {job.stage} (job {job.job_id}) is cancelled: it waited for this job")
    return lines
