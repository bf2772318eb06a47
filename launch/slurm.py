"""A job's script for Slurm: a plan of plain values, rendered to text that a person can read and submit by hand.

Pure functions: nothing here asks a cluster. One `srun` task per rank, so that signals and exit codes reach the ranks.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.durations import parse_seconds
from configs.facts import Shape
from configs.schema import RunConfig
from configs.site import Site

# Nothing asks a hub, nothing phones home; what a user sets in cluster.environment comes after and wins.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "offline",
    "DO_NOT_TRACK": "1",
}
# Ranks end together within seconds; srun ends those that do not, so long after the first one has gone.
STRAY_RANKS_S = 300
# The same after the longest wait of the pre-flight for its ranks.
STRAY_CHECKS_S = 15
# First of the ports on which the ranks meet; one per job, so that two jobs on a node do not meet each other.
FIRST_PORT, NUM_PORTS = 20_000, 12_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that a script says.

    Attributes:
        run: the run's folder, absolute; `command`: absolute path of `aisc` on the nodes.
        folder: where the job starts, so that relative paths mean what they meant at submission.
        seconds: time limit of one start.
        options: what sbatch is told beside shape and time, by long option name; True for a switch.
        environment: variables exported in the job, in this order.
        setup: shell lines before anything else, on the batch node; they reach every rank through the environment.
        prefix: words before `aisc` on every rank: a container's, or none.
        srun: further options of srun: a container's under Pyxis, or none.
        checks_nodes: run the pre-flight first; `check_wait_s`: how long after one of its ranks the others may end.
        hides_gpus: ranks compute on CPUs.
        stage_to: folder of each node's own into which weights and data are copied first.
    """

    name: str
    run: Path
    folder: Path
    command: tuple[str, ...]
    shape: Shape
    seconds: int
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    srun: tuple[str, ...] = ()
    checks_nodes: bool = True
    check_wait_s: int = 45
    hides_gpus: bool = False
    stage_to: str | None = None

    @property
    def gpu_hours(self) -> float:
        """Of one start that uses its whole time limit."""
        return self.shape.gpus * self.seconds / 3600


def make_launch(config: RunConfig, site: Site, shape: Shape, run: Path, command: tuple[str, ...]) -> Launch:
    """Returns the script's values for a resolved configuration."""
    cluster = config.cluster
    prefix, srun = container_words(config)
    threads = {"OMP_NUM_THREADS": str(shape.cpus_per_rank)}
    return Launch(
        name=run.name,
        run=run,
        folder=Path.cwd(),
        command=command,
        shape=shape,
        seconds=int(parse_seconds(cluster.time)),
        options=sbatch_options(config, site),
        environment={**OFFLINE, **threads, **site.network.environment, **cluster.environment},
        setup=(*site.setup, *cluster.setup),
        prefix=prefix,
        srun=srun,
        checks_nodes=cluster.check_nodes,
        check_wait_s=math.ceil(site.bounds.arrival_s) + STRAY_CHECKS_S,
        hides_gpus=config.engine.backend == "gloo" and shape.gpus_per_node > 0,
        stage_to=cluster.stage_to,
    )


def sbatch_options(config: RunConfig, site: Site) -> dict[str, Any]:
    """Returns what sbatch is told beside shape and time, by long option name."""
    cluster = config.cluster
    project = site.projects.get(config.run.project or "")
    account = cluster.account or (project.account if project else None)
    options: dict[str, Any] = {
        "partition": cluster.partition or site.default_partition,
        "account": account,
        "qos": cluster.qos,
        "reservation": cluster.reservation,
        "constraint": cluster.constraint,
        "exclude": ",".join(cluster.exclude) or None,
        "mem": cluster.memory,
        "mail-user": cluster.mail_user,
        "mail-type": "END,FAIL,REQUEUE" if cluster.mail_user else None,
        **cluster.directives,
    }
    return {name: value for name, value in options.items() if value not in (None, False)}


def container_words(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns (words before aisc, options of srun) for the configured container."""
    cluster = config.cluster
    if cluster.container is None:
        return (), ()
    mounts = [*cluster.container_mounts, *([f"{cluster.stage_to}:{cluster.stage_to}"] if cluster.stage_to else [])]
    if cluster.container_runtime == "pyxis":
        return (), (f"--container-image={cluster.container}", *([f"--container-mounts={','.join(mounts)}"] if mounts else []))
    gpu = ("--nv",) if config.engine.backend == "nccl" else ()
    return ("apptainer", "exec", *gpu, *(word for mount in mounts for word in ("--bind", mount)), cluster.container), ()


def render(launch: Launch) -> str:
    """Returns the script of the training, ready for sbatch."""
    shape = launch.shape
    return "\n".join(
        [
            *header(launch, f"training, {shape.nodes} x {shape.ranks_per_node} ranks", launch_by_hand="launch.sbatch"),
            *setting_up(launch),
            *running(launch),
            "",
        ]
    )


def running(launch: Launch) -> list[str]:
    """Returns the lines from the meeting of the ranks to the verdict; $AISC_RUN is the run."""
    return [
        "",
        "# Where the ranks meet.",
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        f"export MASTER_ADDR MASTER_PORT=$(({FIRST_PORT} + SLURM_JOB_ID % {NUM_PORTS}))",
        "",
        "# Records this start; says when Slurm will end it; refuses after too many starts without progress.",
        'AISC_DEADLINE=$("${AISC[@]}" job begin "$AISC_RUN") || exit',
        "export AISC_DEADLINE",
        "code=0",
        *(check_lines(launch) if launch.checks_nodes else []),
        *(stage_in_lines(launch) if launch.stage_to else []),
        *train_lines(launch),
        *(stage_out_lines(launch) if launch.stage_to else []),
        "",
        "# Requeues this job when the cause lies outside the run; says why it ended.",
        '"${AISC[@]}" job end "$AISC_RUN" "$code"',
    ]


def header(launch: Launch, what: str, *, launch_by_hand: str) -> list[str]:
    """Returns the first lines: what it is, and what sbatch is told."""
    shape = launch.shape
    told = {
        "job-name": launch.name,
        "nodes": shape.nodes,
        "ntasks-per-node": shape.ranks_per_node,
        **({"gpus-per-node": shape.gpus_per_node} if shape.gpus_per_node else {}),
        "cpus-per-task": shape.cpus_per_rank,
        "time": slurm_time(launch.seconds),
        "chdir": launch.folder,
        "output": launch.run / "jobs" / "%j.out",
        "open-mode": "append",
        "requeue": True,
        **launch.options,
    }
    return [
        "#!/bin/bash",
        f"# {launch.name}: {what}. Written by aisc launch.",
        f"# By hand: sbatch {shlex.quote(str(launch.run / launch_by_hand))}",
        *(f"#SBATCH {directive(name, value)}" for name, value in told.items()),
    ]


def setting_up(launch: Launch) -> list[str]:
    """Returns the lines that make the environment."""
    return [
        "set -u",
        "umask 077",
        "# Of this start's time, what comes before aisc is counted too.",
        "export AISC_BEGAN=$(date +%s.%N)",
        "# Slurm sends SIGTERM here too; the ranks save then, and this shell must live to say how the job ended.",
        "trap : TERM USR1 USR2",
        f"export AISC_RUN={shlex.quote(str(launch.run))}",
        f"AISC=({shlex.join(launch.command)})",
        *(f"export {name}={shlex.quote(value)}" for name, value in launch.environment.items()),
        *launch.setup,
    ]


def srun_words(launch: Launch) -> str:
    """Returns srun and its options, one task per rank; cores are named again, as srun does not take them from sbatch."""
    return shlex.join(["srun", f"--cpus-per-task={launch.shape.cpus_per_rank}", *launch.srun])


def rank_words(launch: Launch) -> str:
    """Returns the words before `aisc` on each rank, with a space at their end; empty when there are none."""
    words = [*(["env", "CUDA_VISIBLE_DEVICES="] if launch.hides_gpus else []), *launch.prefix]
    return f"{shlex.join(words)} " if words else ""


def check_lines(launch: Launch) -> list[str]:
    """Returns the lines of the pre-flight."""
    return [
        "",
        "# Looks at devices, rates, network, disks and versions of every node; 76: one is to be avoided.",
        f"{srun_words(launch)} --kill-on-bad-exit=0 --wait={launch.check_wait_s} "
        f'{rank_words(launch)}"${{AISC[@]}}" job check "$AISC_RUN" || code=$?',
    ]


def stage_in_lines(launch: Launch) -> list[str]:
    """Returns the lines that copy weights and data onto each node; ranks find them by the variable."""
    return [
        "",
        "# Weights and data onto each node's own disk, once per node.",
        f"export AISC_STAGED={shlex.quote(str(launch.stage_to))}/aisc-$SLURM_JOB_ID",
        'if [ "$code" -eq 0 ]; then',
        f'  {per_node_words(launch)} {rank_words(launch)}"${{AISC[@]}}" job stage-in "$AISC_RUN" "$AISC_STAGED" || code=$?',
        "fi",
    ]


def stage_out_lines(launch: Launch) -> list[str]:
    """Returns the lines that remove the copies; what a killed job leaves, the next one on that node removes."""
    return ["", f'{per_node_words(launch)} rm -rf -- "$AISC_STAGED"']


def per_node_words(launch: Launch) -> str:
    """Returns srun and its options, one task per node."""
    return f"srun --nodes={launch.shape.nodes} --ntasks={launch.shape.nodes} --ntasks-per-node=1"


def train_lines(launch: Launch) -> list[str]:
    """Returns the lines of the training: one task per rank."""
    srun = f"{srun_words(launch)} --kill-on-bad-exit=0 --wait={STRAY_RANKS_S}"
    return [
        "",
        'if [ "$code" -eq 0 ]; then',
        f'  {srun} {rank_words(launch)}"${{AISC[@]}}" train "$AISC_RUN/launch.yaml" --into "$AISC_RUN" || code=$?',
        "fi",
    ]


def directive(name: str, value: Any) -> str:
    """Returns `--name=value`, or `--name` of a switch."""
    return f"--{name}" if value is True else f"--{name}={shlex.quote(str(value))}"


def slurm_time(seconds: int) -> str:
    """Returns `D-HH:MM:SS` as sbatch reads it."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02}:{minutes:02}:{rest:02}"
