"""`-m`: many points from one command, here one after another or as one job array; searches; retries."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.configured import GivenForCluster, load_checked, load_for
from cli.screens import MULTIRUN, console, split_values
from cli.sweep_cost import cost_of
from cli.sweep_plan import Loader, Plan, frozen_text, headline, make_plan, show_points, write_sweep
from cli.sweep_table import show_sweep, tell_point
from configs import compose
from configs.errors import ConfigError, LaunchError
from configs.facts import shape_of
from configs.schema import RunConfig
from configs.site import read_site
from launch import search, sweep_queue
from launch.directives import directive_problems, known_options
from launch.job import end_time
from launch.records import read_jobs
from launch.slurm import Launch, make_launch, render
from launch.slurm_client import has_slurm
from launch.stages import stage_launch
from launch.submit import Script, aisc_command, check_visible, try_out
from launch.sweep import Sweep, SweepInfo, outcomes
from launch.sweep_grid import Point, axis_from
from launch.sweep_local import Runner, run_points
from launch.sweep_script import ARRAY_SCRIPT, SEARCH_SCRIPT, render_array, render_search

if TYPE_CHECKING:
    from rich.console import Console

FLAGS = ("--dry-run",)


def train(arguments: list[str]) -> int:
    """`aisc train -m`: the points on this machine, one after another."""
    flags, words = split_values([word for word in arguments if word not in MULTIRUN], flags=FLAGS)
    plan = make_plan(words, lambda given: load_checked(given, trains=True))
    screen = console()
    screen.print(f"{headline(plan)}, one after another here   {plan.sweep.path}", soft_wrap=True)
    if "--dry-run" in flags:
        show_points(screen, plan)
        return 0
    return run_here(screen, write_sweep(plan, "local"))


def run_here(screen: Console, sweep: Sweep, numbers: Sequence[int] | None = None) -> int:
    """Runs a sweep's points, or some of them, or its search, on this machine; prints the table at the end."""
    info = sweep.info()
    runner = Runner(sweep, aisc_command())
    if info.kind == "search":
        with runner.listening():
            code = search.control(search_of(sweep, info, screen, load=lambda given: load_checked(given, trains=True)), runner)
    else:
        found = outcomes(sweep)
        todo = [one.point for one in found if (one.state != "failed" if numbers is None else one.point.number in numbers)]
        code = run_points(sweep, todo, runner, lambda one, seconds: tell_point(screen, one, len(found), seconds))
    show_sweep(screen, sweep)
    if runner.stopping:
        screen.print("stopped: saved. The same command continues.")
    elif code == 0 and any(one.state == "failed" for one in outcomes(sweep)):
        return 1
    return code


def search_of(sweep: Sweep, info: SweepInfo, screen: Console, load: Loader) -> search.Search:
    """Returns the search in a sweep's folder, composed again from the words that it was made from."""
    fixed = [*([str(sweep.yaml_path)] if sweep.yaml_path else []), *info.words]
    axes = tuple(axis_from(values) for values in info.axes)
    section = compose.attempt(fixed).config.sweep

    def freeze_point(point: Point) -> str:
        return frozen_text(load([*fixed, *point.words]), info.stem)

    return search.Search(sweep, axes, section, freeze_point, lambda one: tell_point(screen, one, info.trials, None))


def launch(arguments: list[str]) -> int:
    """`aisc launch -m`: the points as one job array, or a search's controller as a small job."""
    flags, words = split_values([word for word in arguments if word not in MULTIRUN], flags=FLAGS)
    if not has_slurm() and "--dry-run" not in flags:
        raise LaunchError("aisc launch: no Slurm on this machine (sbatch is not on the path); here: aisc train -m, or --dry-run")
    plan = make_plan(words, load_for)
    given = [one for one in plan.given if isinstance(one, GivenForCluster)]
    launches = [point_launch(one, plan.sweep.run_of(point.number).path) for one, point in zip(given, plan.points, strict=True)]
    check_visible(plan.sweep.path, given[0].site)
    if problems := directive_problems(plan.config.cluster.directives, known_options()):
        raise ConfigError(problems)
    screen = console()
    cost = cost_of(plan, given)
    throttle = plan.config.sweep.throttle
    screen.print(f"{headline(plan)} ({throttle} at a time), {cost.text}", soft_wrap=True)
    if cost.problem:
        raise LaunchError(f"{cost.problem}; nothing was submitted")
    name = SEARCH_SCRIPT if plan.is_search else ARRAY_SCRIPT
    text = search_script(given[0], plan.sweep) if plan.is_search else array_script(plan, launches)
    if "--dry-run" in flags:
        show_points(screen, plan)
        screen.print(f"\ndry run: nothing was written, nothing submitted   script {plan.sweep.path / name}:\n", soft_wrap=True)
        screen.print(text, markup=False, soft_wrap=True)
        return 0
    check_not_launched(plan.sweep, is_search=plan.is_search)
    try_out(text)
    sweep = write_sweep(plan, "slurm", cost.plans)
    sweep_queue.write_scripts(sweep, name, text)
    if plan.is_search:
        job = sweep_queue.submit_search(sweep)
    else:
        shape = given[0].shape
        numbers = [point.number for point in plan.points]
        job = sweep_queue.submit_array(
            sweep, numbers, throttle, nodes=shape.nodes, gpus_per_node=shape.gpus_per_node
        )
    screen.print(f"\nsubmitted {job.job_id}      script  {sweep.path / name}", soft_wrap=True)
    screen.print(f"  table   aisc runs show {sweep.short}       failed ones again  aisc runs retry {sweep.short}", soft_wrap=True)
    return 0


def check_not_launched(sweep: Sweep, *, is_search: bool) -> None:
    """Raises LaunchError when this grid was launched before: what failed is retried on request only."""
    if not is_search and read_jobs(sweep.path):
        raise LaunchError(
            f"{sweep.name}: this sweep was launched already; nothing was submitted. "
            f"See it: aisc runs show {sweep.short}. Failed points again: aisc runs retry {sweep.short}"
        )


def point_launch(given: GivenForCluster, run: Path) -> Launch:
    """Returns the script's values for one point."""
    return make_launch(given.config, given.site, given.shape, run, aisc_command())


def array_script(plan: Plan, launches: Sequence[Launch]) -> str:
    """Returns the array's script.

    Raises:
        ConfigError: the points ask for different nodes, times or environments, which elements of one array cannot.
    """
    same = dataclasses.replace(launches[0], run=plan.sweep.path, name=plan.sweep.name)
    for point, one in zip(plan.points, launches, strict=True):
        if dataclasses.replace(one, run=plan.sweep.path, name=plan.sweep.name) != same:
            raise ConfigError(
                f"-m: {point} asks Slurm for something else than {plan.points[0]}; the jobs of an array are alike. "
                "Launch one sweep for each value of the cluster section"
            )
    return render_array(launches[0], plan.sweep, len(plan.points), plan.config.sweep.throttle)


def search_script(given: GivenForCluster, sweep: Sweep) -> str:
    """Returns the script of a search's controller."""
    base = stage_launch(given.config, given.site, given.shape, sweep.path, aisc_command(), "prepare")
    return render_search(base, sweep)


def retry(sweep: Sweep) -> int:
    """`aisc runs retry SWEEP`: the failed points again, where the sweep ran; nothing else."""
    info = sweep.info()
    screen = console()
    if info.kind == "search":
        section = search_of(sweep, info, screen, load=load_checked).section
        numbers = search.enqueue_failed(sweep, section)
    elif info.where == "slurm":
        numbers = sweep_queue.lost_points(sweep, outcomes(sweep))
    else:
        numbers = [one.point.number for one in outcomes(sweep) if one.state == "failed"]
    if not numbers:
        screen.print(f"{sweep.name}: no point has failed; nothing to retry")
        return 0
    screen.print(f"{sweep.name}: again {'points' if len(numbers) > 1 else 'point'} {', '.join(map(str, numbers))}")
    if info.where == "local":
        return run_here(screen, sweep, numbers)
    if info.kind == "search":
        job = sweep_queue.submit_search(sweep)
    else:
        nodes, gpus = asked_for(sweep, numbers[0])
        job = sweep_queue.submit_array(sweep, numbers, info.throttle, nodes=nodes, gpus_per_node=gpus)
    screen.print(f"submitted {job.job_id}   aisc runs show {sweep.short}")
    return 0


def load_point(sweep: Sweep, number: int) -> RunConfig:
    """Returns a point's frozen configuration."""
    return compose.thaw((sweep.run_of(number).path / "launch.yaml").read_text(encoding="utf-8"))


def asked_for(sweep: Sweep, number: int) -> tuple[int, int]:
    """Returns the nodes of each element of the array, and their GPUs: as submitted, or as the site file says."""
    for job in reversed(read_jobs(sweep.path)):
        return job.nodes, job.gpus_per_node
    cluster = load_point(sweep, number).cluster
    shape = shape_of(cluster, read_site(cluster))
    return shape.nodes, shape.gpus_per_node


def control(sweep_folder: Path, environment: MutableMapping[str, str]) -> int:
    """`aisc job search SWEEP`: the controller of a search in the queue; safe to kill and to start again."""
    sweep = Sweep(sweep_folder)
    ends = end_time(environment) if "SLURM_JOB_ID" in environment else None
    # What Slurm told this job is nothing for the jobs that it submits.
    for name in [name for name in environment if name.startswith("SLURM_") and name != "SLURM_CONF"]:
        del environment[name]
    screen = console()

    def make(point: Point, run: Path) -> Script:
        config = load_point(sweep, point.number)
        site = read_site(config.cluster)
        shape = shape_of(config.cluster, site)
        text = render(make_launch(config, site, shape, run, aisc_command()))
        return Script("train", text, shape.nodes, shape.gpus_per_node)

    info = sweep.info()
    found = search_of(sweep, info, screen, load=load_for)
    queue = sweep_queue.SlurmQueue(sweep, found.section.throttle, make, ends)
    code = search.control(found, queue)
    if code != search.EXIT_CONTINUE:
        show_sweep(screen, sweep)
    sys.stdout.flush()
    return code
