"""`aisc launch CHAIN.yaml`: every stage checked and planned, then its jobs in the queue, each after the stage before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.chain import show_plan
from cli.chain_plan import ChainPlan, StagePlan, known_stages, make_plan, new_states, write_chain
from cli.configured import GivenForCluster, checked_for_cluster
from cli.counting import count_data
from cli.launch import HASHED_HERE, Prepared
from cli.screens import console, split_values
from configs import atomic
from configs.compose import freeze
from configs.errors import ConfigError, LaunchError
from configs.memory import model_of
from data_pipelines.index import find_prepared
from launch.chain import StageState, is_done
from launch.chain_alive import check_told
from launch.chain_queue import StageJobs, render_verb, submit_chain, with_hand_on
from launch.chain_states import JOB_STAGES
from launch.directives import directive_problems, known_options
from launch.plan import budget_problem
from launch.plan import make_plan as plan_run
from launch.records import SCRIPT_NAMES
from launch.slurm import make_launch, render, slurm_time
from launch.slurm_client import has_slurm
from launch.stages import chain as stage_scripts
from launch.stages import stage_launch
from launch.submit import Script, aisc_command, check_visible, try_out

if TYPE_CHECKING:
    from rich.console import Console

FLAGS = ("--dry-run",)
VERB = {"evaluate": "eval", "release": "export"}


def launch(arguments: Sequence[str]) -> int:
    """Submits a chain; returns the exit code."""
    flags, words = split_values(arguments, flags=FLAGS)
    if not has_slurm() and "--dry-run" not in flags:
        raise LaunchError("aisc launch: no Slurm on this machine (sbatch is not on the path); here: aisc train, or --dry-run")
    plan = make_plan(words, checked_for_cluster)
    prepared = [prepare(plan, stage) for stage in plan.stages]
    check_all(plan, prepared)
    jobs = jobs_of(plan, prepared)
    screen = console()
    show_plan(screen, plan, "as jobs, each after the one before")
    show_shapes(screen, plan, prepared)
    if "--dry-run" in flags:
        show_scripts(screen, jobs)
        return 0
    with plan.chain.held():
        check_told(plan.chain, known_stages(plan.chain), new_states(plan))
        chain = write_chain(plan, "launch", arguments)
        states = {stage.name: stage for stage in chain.info().stages}
        todo = left_to_do(plan, jobs, states)
        for script in (script for stage in todo for script in stage.scripts):
            try_out(script.text)
        for one in prepared:
            if one.plan is not None:
                atomic.write_json(one.folder.path / "plan.json", one.plan.plan_json())
        found = submit_chain(chain, todo)
    show_jobs(screen, plan, found)
    return 0


def prepare(plan: ChainPlan, stage: StagePlan) -> Prepared:
    """Returns the launch of one training stage; writes nothing. Its cost is planned with the model of the first stage."""
    given, folder = stage.given, plan.chain.run_of(stage.name)
    assert isinstance(given, GivenForCluster)
    check_visible(folder.path, given.site)
    size = count_data(given.config)
    planned = plan_run(given.config, given.site, given.shape, given.facts, size) if model_of(given.facts.model, None) else None
    made = make_launch(stage.config, given.site, given.shape, folder.path, aisc_command())
    return Prepared(folder, stage.config, made, given.site, given.shape, planned)


def check_all(plan: ChainPlan, prepared: Sequence[Prepared]) -> None:
    """Raises ConfigError or LaunchError on directives that sbatch does not know, or a budget that all stages exceed."""
    options = known_options()
    problems = [line for one in prepared if one.config.cluster.directives for line in directive_problems(one.config.cluster.directives, options)]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    hours = [one.plan.gpu_hours for one in prepared if one.plan is not None]
    known = [hour for hour in hours if hour is not None]
    total = sum(known) if known and len(known) == len(prepared) else None
    first = prepared[0]
    points = 1 if total is not None else len(prepared)  # not known: the time limit of each
    runs, this_run = plan.chain.path.parent, plan.chain.name
    if problem := budget_problem(first.config, first.site, first.shape, total, runs, this_run=this_run, points=points):
        raise LaunchError(f"{problem}; nothing was submitted")


def jobs_of(plan: ChainPlan, prepared: Sequence[Prepared]) -> list[StageJobs]:
    """Returns the jobs of every stage."""
    found = []
    for number, (stage, one) in enumerate(zip(plan.stages, prepared, strict=True)):
        text = render(with_hand_on(one.launch, plan.chain.path, stage.name))
        train = Script("train", text, one.shape.nodes, one.shape.gpus_per_node)
        scripts = stage_scripts(
            one.config, one.site, one.shape, one.folder.path, one.launch.command, train=train, is_prepared=number == 0 and is_prepared(one)
        )
        kept = [script for script in scripts if script.stage in ("prepare", "train")]
        found.append(StageJobs(stage.name, "train", one.folder.path, freeze(one.config), kept))
    last = prepared[-1]
    for name, words in plan.words.items():
        key = JOB_STAGES[name]
        made = stage_launch(last.config, last.site, last.shape, last.folder.path, last.launch.command, key)
        made = dataclasses.replace(with_hand_on(made, plan.chain.path, name), name=f"{plan.chain.name}-{name}")
        text = render_verb(made, key, [VERB[name], *words])
        script = Script(key, text, 1, made.shape.gpus_per_node)
        found.append(StageJobs(name, name, last.folder.path, freeze(last.config), [script]))
    return found


def is_prepared(one: Prepared) -> bool:
    """True when the first stage's data lies ready; a later stage's tokenizer is not there yet."""
    config = one.config
    tokenizer = str(Path(config.model.tokenizer or config.model.path or "").expanduser())
    return find_prepared(config.data, config.objective.name, tokenizer, seed=config.training.seed, most_bytes=HASHED_HERE) is not None


def left_to_do(plan: ChainPlan, jobs: Sequence[StageJobs], states: dict[str, StageState]) -> list[StageJobs]:
    """Returns the stages that are not done; those that are have been verified.

    Behind a training that has to run every stage is asked again: its job compares the model that it began from.
    """
    for number, one in enumerate(jobs):
        if one.kind == "train" and not is_done(plan.chain, states[one.name]):
            return list(jobs[number:])
    return [one for one in jobs if one.kind != "train" and not is_done(plan.chain, states[one.name])]


def show_shapes(screen: Console, plan: ChainPlan, prepared: Sequence[Prepared]) -> None:
    """Prints what each training asks for and costs."""
    for stage, one in zip(plan.stages, prepared, strict=True):
        shape = one.shape
        what = f"{shape.nodes} node{'s' if shape.nodes > 1 else ''} x {shape.gpus_per_node or 'no'} GPU{'s' if shape.gpus_per_node != 1 else ''}"
        cost = f"   {one.plan.cost_text()}" if one.plan is not None and one.plan.gpu_hours is not None else ""
        screen.print(f"  {stage.name:<10} {what}, {one.config.engine.name}, {slurm_time(one.launch.seconds)}{cost}", soft_wrap=True, markup=False)


def show_scripts(screen: Console, jobs: Sequence[StageJobs]) -> None:
    """Prints every script."""
    screen.print("\ndry run: nothing was written, nothing submitted")
    for stage in jobs:
        for script in stage.scripts:
            screen.print(f"\nscript {stage.run / SCRIPT_NAMES[script.stage]}:\n", soft_wrap=True, markup=False)
            screen.print(script.text, markup=False, soft_wrap=True)


def show_jobs(screen: Console, plan: ChainPlan, found: dict[str, tuple[int, bool]]) -> None:
    """Prints each stage's job, and how to go on."""
    new = [f"{name} {number}" for name, (number, is_new) in found.items() if is_new]
    old = [f"{name} {number}" for name, (number, is_new) in found.items() if not is_new]
    if old:
        screen.print(f"\nin the queue already: {', '.join(old)}", soft_wrap=True, markup=False)
    done = [name for name in plan.names if name not in found]
    if done:
        screen.print(f"done, verified: {', '.join(done)}", soft_wrap=True, markup=False)
    screen.print(f"\nsubmitted {' -> '.join(new)}" if new else "\nnothing to submit", soft_wrap=True, markup=False)
    screen.print(f"  follow  aisc runs show {plan.chain.short}", soft_wrap=True, markup=False)
