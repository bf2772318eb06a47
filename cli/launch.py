"""`aisc launch`: check, freeze, plan, write the script, submit, print."""

from __future__ import annotations

import copy
import importlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.configured import GivenForCluster, load_for
from cli.counting import count_data
from cli.screens import console, is_multirun, split_flags
from cli.train import already_finished, run_folder
from configs import atomic
from configs.compose import freeze
from configs.errors import ConfigError, LaunchError
from configs.facts import Shape
from configs.memory import model_of
from configs.runfolder import RunFolder
from configs.schema import RunConfig
from configs.site import Site
from data_pipelines.index import find_prepared
from launch.directives import directive_problems, known_options
from launch.plan import Plan, budget_left, budget_problem, make_plan
from launch.records import SCRIPT_NAMES, Job
from launch.slurm import Launch, make_launch, render, slurm_time
from launch.slurm_client import has_slurm
from launch.stages import chain, summary
from launch.submit import Script, aisc_command, check_free, check_visible, claimed, submit, try_out

if TYPE_CHECKING:
    from rich.console import Console

FLAGS = ("--new", "--dry-run", "--follow")
# Data up to this size is hashed on this machine to see whether it lies prepared; half a second.
HASHED_HERE = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a launch submits, checked; `plan` is None for a model whose shapes are not known."""

    folder: RunFolder
    config: RunConfig
    launch: Launch
    site: Site
    shape: Shape
    plan: Plan | None


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    if is_multirun(arguments):
        points: int = importlib.import_module("cli.sweep").launch(arguments)
        return points
    began = time.monotonic()
    flags, rest = split_flags(arguments, FLAGS)
    if not has_slurm() and "--dry-run" not in flags:
        raise LaunchError("aisc launch: no Slurm on this machine (sbatch is not on the path); here: aisc train, or --dry-run")
    given = load_for(rest)
    prepared = prepare(given, is_new="--new" in flags)
    screen = console()
    if already_finished(screen, prepared.folder):
        return 0
    scripts = scripts_of(prepared)
    if "--dry-run" in flags:
        show(screen, prepared, scripts, time.monotonic() - began, start="")
        screen.print("\ndry run: nothing was written, nothing submitted")
        for script in scripts:
            screen.print(f"\nscript {prepared.folder.path / SCRIPT_NAMES[script.stage]}:\n", soft_wrap=True, markup=False)
            screen.print(script.text, markup=False, soft_wrap=True)
        return 0
    jobs, start = launch(prepared, scripts)
    show(screen, prepared, scripts, time.monotonic() - began, start=start)
    show_jobs(screen, prepared, jobs)
    if "--follow" in flags:
        code: int = importlib.import_module("cli.runs").main(["follow", prepared.folder.name, f"run.dir={prepared.folder.path.parent}"])
        return code
    return 0


def prepare(given: GivenForCluster, *, is_new: bool) -> Prepared:
    """Returns the launch of a resolved, checked configuration; writes nothing.

    Raises:
        ConfigError: a directive that sbatch does not know.
        LaunchError: the nodes do not see its folder, it does not fit, or a budget is used up.
    """
    config, site, shape = copy.deepcopy(given.config), given.site, given.shape
    if config.run.dir is None and site.storage.runs is not None:
        config.run.dir = site.storage.runs
    folder = run_folder(config, given.stem, is_new=is_new)
    folder = RunFolder(Path(folder.path).absolute())
    config.run.name, config.run.dir = given.stem, str(folder.path.parent)
    check_visible(folder.path, site)
    if config.cluster.directives and (problems := directive_problems(config.cluster.directives, known_options())):
        raise ConfigError(problems)
    plan = make_plan(config, site, shape, given.facts, count_data(config)) if model_of(given.facts.model, None) else None
    hours = plan.gpu_hours if plan is not None else None
    if problem := budget_problem(config, site, shape, hours, folder.path.parent, this_run=folder.name):
        raise LaunchError(f"{problem}; nothing was submitted")
    return Prepared(folder, config, make_launch(config, site, shape, folder.path, aisc_command()), site, shape, plan)


def scripts_of(prepared: Prepared) -> list[Script]:
    """Returns the scripts of all stages; prepare is left out when the data lies ready."""
    config, shape = prepared.config, prepared.shape
    tokenizer = str(Path(config.model.tokenizer or config.model.path or "").expanduser())
    ready = find_prepared(config.data, config.objective.name, tokenizer, seed=config.training.seed, most_bytes=HASHED_HERE)
    train = Script("train", render(prepared.launch), shape.nodes, shape.gpus_per_node)
    return chain(config, prepared.site, shape, prepared.folder.path, prepared.launch.command, train=train, is_prepared=ready is not None)


def launch(prepared: Prepared, scripts: list[Script]) -> tuple[list[Job], str]:
    """Submits; returns the jobs and Slurm's estimate of the first one's start."""
    run = prepared.folder.path
    starts = [try_out(script.text) for script in scripts]
    with claimed(run):
        check_free(run)
        if prepared.plan is not None:
            atomic.write_json(run / "plan.json", prepared.plan.plan_json())
        jobs = submit(run, freeze(prepared.config), scripts)
    return jobs, starts[0]


def show(screen: Console, prepared: Prepared, scripts: list[Script], seconds: float, *, start: str) -> None:
    """Prints what was asked for."""
    launch, shape, cluster = prepared.launch, prepared.shape, prepared.config.cluster
    partition = prepared.site.partition(cluster.partition)
    what = f"{shape.gpus_per_node} {partition.gpu if partition and partition.gpu else 'GPUs'}" if shape.gpus_per_node else "CPUs"
    nodes = "1 node" if shape.nodes == 1 else f"{shape.nodes} nodes"
    screen.print(
        f"{launch.name}   {nodes} x {what}, {prepared.config.engine.name}, {slurm_time(launch.seconds)}"
        f"      checked on this node in {seconds:.1f} s",
        soft_wrap=True,
    )
    rows = [("stages", summary(scripts))] if len(scripts) > 1 else []
    rows += planned(prepared)
    rows += [("survives", "time limit, preemption, node loss: saves, requeues, continues"), ("", f"(ends after {cluster.max_restarts} starts without progress)")]
    if start:
        rows.append(("start", f"about {start.replace('T', ' ')}"))
    if cluster.mail_user:
        rows.append(("mail", f"{cluster.mail_user} on END,FAIL,REQUEUE"))
    for key, text in rows:
        screen.print(f"  {key:<10}{text}", soft_wrap=True)


def planned(prepared: Prepared) -> list[tuple[str, str]]:
    """Returns the rows on memory, cost and budget, as far as they are known."""
    plan, config = prepared.plan, prepared.config
    if plan is None:
        return []
    rows = [("fits", plan.fits_text())] if plan.nodes.gpu_bytes else []
    if plan.card is not None or plan.gpu_hours is not None:
        rows.append(("cost", plan.cost_text()))
    left = budget_left(config, prepared.site, prepared.folder.path.parent, this_run=prepared.folder.name)
    if left is not None:
        rows.append(("budget", f"{config.run.project}: {left:,.0f} GPU-hours left before this"))
    if config.cluster.max_gpu_hours is not None:
        rows.append(("limit", f"{config.cluster.max_gpu_hours:,.1f} GPU-hours (cluster.max_gpu_hours)"))
    return rows


def show_jobs(screen: Console, prepared: Prepared, jobs: list[Job]) -> None:
    """Prints what was submitted and how to go on."""
    name = prepared.folder.name
    numbers = " -> ".join(str(job.job_id) for job in jobs)
    screen.print(f"\nsubmitted {numbers}      script  {prepared.folder.path / SCRIPT_NAMES['train']}", soft_wrap=True)
    screen.print(f"  follow  aisc runs follow {name}       stop  aisc runs stop {name} (saves first)", soft_wrap=True)
