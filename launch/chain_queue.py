"""A chain through Slurm: each stage's jobs wait for the stage before; nothing is submitted twice. Torch-free.

The script of a stage verifies what it takes before anything else, and says at its end what has become of it. What Slurm
cancels because of a stage that failed is recorded in the run folders of the stages behind it.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import atomic
from configs.errors import LaunchError
from configs.runfolder import RunFolder
from launch.chain import ChainFolder, StageState, end
from launch.chain_states import JOB_STAGES, last_start
from launch.records import SCRIPT_NAMES, Job, JobStart, jobs_folder, read_jobs, read_start, write_job, write_start
from launch.slurm import Launch, header, rank_words, setting_up, srun_words
from launch.slurm_client import call
from launch.stage_job import begin_stage, end_stage
from launch.stages import cancelled_start, followers
from launch.submit import ALIVE, Script, check_free, explain_refusal, queue_states, take_back
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
    """Returns the launch whose script begins by verifying what the stage takes."""
    line = f'"${{AISC[@]}}" chain begin {shlex.quote(str(chain))} {shlex.quote(stage)} || exit'
    return dataclasses.replace(launch, setup=(*launch.setup, "# Verifies the model that this stage takes.", line))


def with_end(text: str, chain: Path, stage: str) -> str:
    """Returns a script that ends by telling the chain what has become of the stage."""
    told = f'"${{AISC[@]}}" chain end {shlex.quote(str(chain))} {shlex.quote(stage)}'
    return "\n".join([text.rstrip("\n"), "ended=$?", "# Tells the chain, and the stages that wait for this one.", told, 'exit "$ended"', ""])


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


def alive_job(run: Path, stage: str) -> int | None:
    """Returns the job of `stage` that waits or runs in the queue."""
    numbers = [job.job_id for job in read_jobs(run) if job.stage == stage]
    return next((number for number, state in reversed(queue_states(numbers).items()) if state in ALIVE), None)


def submit_chain(chain: ChainFolder, stages: Sequence[StageJobs]) -> dict[str, tuple[int, bool]]:
    """Submits the jobs of the stages that are not in the queue; returns each stage's job and whether it is new.

    Args:
        chain: its folder, held by this process.
        stages: those that are not done, in their order.

    Raises:
        LaunchError: Slurm refused one; then nothing of this command is in the queue.
    """
    found: dict[str, tuple[int, bool]] = {}
    new: list[Job] = []
    after: int | None = None
    try:
        for stage in stages:
            number = alive_job(stage.run, stage.key)
            if number is not None:
                found[stage.name] = (number, False)
            else:
                if stage.kind == "train":
                    check_free(stage.run)
                jobs = submit_after(stage.run, stage.launch_yaml, stage.scripts, after, new)
                number = next(job.job_id for job in jobs if job.stage == stage.key)
                found[stage.name] = (number, True)
                chain.change(stage.name, state="waiting", cause="", began=None, ended=None, taken={}, made={})
            after = number
    except (LaunchError, OSError, ValueError) as error:
        take_back(new)
        if isinstance(error, LaunchError):
            raise LaunchError(explain_refusal(str(error))) from error
        raise
    return found


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
    stage = stage_named(chain, name)
    run = chain.path / stage.run
    begin_stage(run, JOB_STAGES[stage.kind], environment)
    code, said = end_stage(run, JOB_STAGES[stage.kind], 2, environment)
    end(chain, name, "failed", cause)
    return code, "\n".join([said, *cancel_behind(chain, stage)])


def end_job(chain: ChainFolder, name: str) -> str:
    """Records how the stage of this job ended, and on failure that the stages behind it never begin."""
    stage = stage_named(chain, name)
    start = last_start(chain.path / stage.run, JOB_STAGES[stage.kind])
    if start is None or start.verdict is None:
        return f"stage {name}: its end was not recorded"
    if start.verdict == "finished":
        end(chain, name, "done")
        return f"stage {name}: done"
    if start.verdict not in ("failed", "stopped", "gave up"):
        return f"stage {name}: {start.verdict}"
    end(chain, name, "stopped" if start.verdict == "stopped" else "failed", cause_of(chain.path / stage.run, start))
    return "\n".join([f"stage {name}: {start.verdict}", *cancel_behind(chain, stage)])


def cause_of(run: Path, start: JobStart) -> str:
    """Returns why a job failed; of a training that never came to an attempt its output says it, not its record."""
    path = jobs_folder(run) / f"{start.job_id}.out"
    if RunFolder(run).attempts() or not path.exists():
        return start.cause
    return last_words(path, besides=start.cause).partition("\n")[0] or start.cause


def cancel_behind(chain: ChainFolder, stage: StageState) -> list[str]:
    """Records that the jobs of later stages which wait for this one never begin: Slurm cancels them."""
    start = last_start(chain.path / stage.run, JOB_STAGES[stage.kind])
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


def stage_named(chain: ChainFolder, name: str) -> StageState:
    """Returns a stage of chain.json.

    Raises:
        LaunchError: it has none of that name.
    """
    for stage in chain.info().stages:
        if stage.name == name:
            return stage
    raise LaunchError(f"{chain.name}: no stage {name}")
