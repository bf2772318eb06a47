"""A run as a chain of jobs, so that no GPU waits for tokenisation: prepare on CPU nodes, train, eval, export.

Each job waits for the one before it to end well; when one fails, Slurm cancels what follows and the records say so.
Pure functions: nothing here asks a cluster or reads data.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from configs.facts import Shape
from configs.schema import RunConfig
from configs.schema.cluster import STAGES
from configs.site import Site
from launch.records import SCRIPT_NAMES, Job, JobStart
from launch.slurm import Launch, header, make_launch, rank_words, setting_up, srun_words
from launch.submit import Script

WHAT = {
    "prepare": "reads, tokenises and packs the data",
    "eval": "scores the exported model on the held-out data",
    "export": "writes the model as one folder",
}
ON_CPUS = ("prepare", "export")
# Options of the training's job that say nothing about another partition's nodes.
OF_GPU_NODES = ("constraint", "reservation", "mem", "cpus-per-gpu", "mem-per-gpu", "gpu-bind", "gpu-freq", "gres", "gres-flags")


def stages_of(config: RunConfig, *, is_prepared: bool) -> list[str]:
    """Returns the stages of a launch, in their order.

    Args:
        config: `cluster.stages` names them; when it names none: prepare and train.
        is_prepared: the data lies ready, so there is nothing to prepare.
    """
    wanted = config.cluster.stages or ["prepare", "train"]
    return [stage for stage in STAGES if (stage in wanted or stage == "train") and not (stage == "prepare" and is_prepared)]


def stage_launch(config: RunConfig, site: Site, shape: Shape, run: Path, command: tuple[str, ...], stage: str) -> Launch:
    """Returns the values of the script of prepare, eval or export.

    Args:
        config: resolved; site: the centre; shape: of the training.
        run: the run's folder, absolute.
        command: how nodes call this program.
        stage: which one.
    """
    launch = make_launch(config, site, shape, run, command)
    where = config.cluster.cpu_partition or site.cpu_partition
    options = dict(launch.options)
    if stage in ON_CPUS and where is not None and where != options.get("partition"):
        options = {name: value for name, value in options.items() if name not in OF_GPU_NODES}
        options["partition"] = where
    # Under nccl a container is given the driver of the node, which a node without GPU does not have.
    prefix = tuple(word for word in launch.prefix if not (stage in ON_CPUS and word == "--nv"))
    new = stage_shape(site, shape, where, stage)
    threads = {"OMP_NUM_THREADS": str(new.cpus_per_rank)} if "OMP_NUM_THREADS" not in config.cluster.environment else {}
    return dataclasses.replace(launch, shape=new, options=options, prefix=prefix, environment={**launch.environment, **threads})


def stage_shape(site: Site, shape: Shape, cpu_partition: str | None, stage: str) -> Shape:
    """Returns what a stage takes: eval one of the training's GPUs; prepare and export a node's cores, and no GPU."""
    if stage == "eval":
        return Shape(1, min(1, shape.gpus_per_node), 1, shape.cpus_per_rank)
    facts = site.partitions.get(cpu_partition or "")
    whole = facts.cpus_per_node if facts is not None and not facts.gpus_per_node else None
    return Shape(1, 0, 1, whole or shape.cpus_per_rank * shape.ranks_per_node)


def stage_words(config: RunConfig, stage: str) -> str:
    """Returns the verb that the stage calls and what it is given, as shell words."""
    if stage == "prepare":
        return 'prepare "$AISC_RUN/launch.yaml"'
    if stage == "eval":
        return 'eval "$AISC_RUN"'
    is_adapter = config.adapter.name != "none" and not config.export.merge
    return f'export "$AISC_RUN"{" --merge" if is_adapter else ""}'


def render_stage(config: RunConfig, launch: Launch, stage: str) -> str:
    """Returns the script of prepare, eval or export, ready for sbatch."""
    call = f"{srun_words(launch)} {rank_words(launch)} {stage_words(config, stage)} || code=$?"
    return "\n".join(
        [
            *header(launch, f"{stage}: {WHAT[stage]}", launch_by_hand=SCRIPT_NAMES[stage]),
            *setting_up(launch),
            "",
            "# Records this start.",
            f'"${{AISC[@]}}" job stage-begin "$AISC_RUN" {shlex.quote(stage)} || exit',
            "code=0",
            # A start after an interrupted one: what is complete is there under its name.
            *([f'[ -d "$AISC_RUN/export" ] || {call}'] if stage == "export" else [call]),
            "",
            "# Says how it ended; when it failed, Slurm cancels the jobs that wait for it.",
            f'"${{AISC[@]}}" job stage-end "$AISC_RUN" {shlex.quote(stage)} "$code"',
            "",
        ]
    )


def chain(
    config: RunConfig, site: Site, shape: Shape, run: Path, command: tuple[str, ...], *, train: Script, is_prepared: bool
) -> list[Script]:
    """Returns the scripts of a launch in the order of their jobs; `train` is that of the training."""
    scripts = []
    for stage in stages_of(config, is_prepared=is_prepared):
        if stage == "train":
            scripts.append(train)
            continue
        launch = stage_launch(config, site, shape, run, command, stage)
        scripts.append(Script(stage, render_stage(config, launch, stage), 1, launch.shape.gpus_per_node))
    return scripts


def followers(jobs: Sequence[Job], job_id: int) -> list[Job]:
    """Returns the jobs that wait for `job_id`, directly or through others, in their order."""
    waiting, found = {job_id}, []
    for job in jobs:
        if job.after in waiting:
            waiting.add(job.job_id)
            found.append(job)
    return found


def cancelled_start(job: Job, failed: JobStart, now: float) -> JobStart:
    """Returns the record of a job that never begins because one before it failed."""
    return JobStart(
        job_id=job.job_id,
        stage=job.stage,
        restart=0,
        began=now,
        nodes=[],
        gpus_per_node=0,
        ended=now,
        verdict="cancelled",
        cause=f"{failed.stage} (job {failed.job_id}) {failed.verdict}: {failed.cause}",
    )


def summary(scripts: Sequence[Script]) -> str:
    """Returns `prepare (cpu) -> train (gpu) -> eval (gpu)`."""
    return " -> ".join(f"{script.stage} ({'gpu' if script.gpus_per_node else 'cpu'})" for script in scripts)
