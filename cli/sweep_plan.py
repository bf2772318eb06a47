"""A sweep as it is asked for: read, every point composed and checked, its folder made. Nothing is run or submitted."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cli.configured import Given, GivenForCluster
from configs import compose
from configs.compose import freeze, identity
from configs.errors import ConfigError
from configs.runfolder import runs_dir
from configs.schema import RunConfig
from launch import search
from launch.sweep import Sweep, SweepInfo, create
from launch.sweep_grid import Axis, Point, Range, Swept, grid_points, read_words, space_words, sweep_hash

if TYPE_CHECKING:
    from rich.console import Console

Loader = Callable[[list[str]], Given | GivenForCluster]


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep, read and checked, nothing written.

    Attributes:
        points: of a grid all of them; of a search the ends of its space, which are checked and never run.
    """

    swept: Swept
    section_trials: int
    points: list[Point]
    given: list[Given | GivenForCluster]
    sweep: Sweep
    yaml: Path | None

    @property
    def config(self) -> RunConfig:
        return self.given[0].config

    @property
    def is_search(self) -> bool:
        return self.section_trials > 0

    @property
    def num_runs(self) -> int:
        return self.section_trials or len(self.points)


def make_plan(words: Sequence[str], load: Loader) -> Plan:
    """Returns the sweep of `[RUN.yaml] key=values ...`, every point composed and checked.

    Raises:
        ConfigError: what is wrong with the swept values or with any point, each problem once.
    """
    swept = read_words(words)
    base = compose.attempt(list(swept.fixed)).config
    given_keys = {axis.key for axis in swept.axes} | {word.partition("=")[0] for word in swept.fixed}
    more = read_words([word for word in space_words(base.sweep.space) if word.partition("=")[0] not in given_keys])
    swept = Swept((*swept.fixed, *more.fixed), (*swept.axes, *more.axes))
    trials = base.sweep.trials
    if trials:
        search.load_optuna()
        if not swept.axes:
            raise ConfigError(f"sweep.trials={trials}: nothing is swept; expected key=interval(low,high) or key=value,value")
    points = corners(swept.axes) if trials else grid_points(swept.axes)
    given = check_points(swept.fixed, points, load)
    first = given[0]
    if trials and first.config.data.validation.strip().lower() == "none":
        raise ConfigError(f"sweep.trials={trials}: data.validation=none leaves no eval_loss to search by")
    site = first.site if isinstance(first, GivenForCluster) else None
    parent = runs_dir(base.run.dir or (site.storage.runs if site is not None else None)).absolute()
    parts = [(point.values, identity(one.config)) for point, one in zip(points, given, strict=True)]
    if trials:
        parts.append(({axis.key: str(axis) for axis in swept.axes}, f"{base.sweep.sampler} {base.sweep.pruner} {base.sweep.seed}"))
    yaml = next((Path(word) for word in swept.fixed if "=" not in word), None)
    return Plan(swept, trials, points, given, Sweep(parent / f"{first.stem}-{sweep_hash(parts)}"), yaml)


def corners(axes: Sequence[Axis | Range]) -> list[Point]:
    """Returns the points where one key is at one of its ends or choices and the others are at their first."""
    ends = {axis.key: axis.values if isinstance(axis, Axis) else tuple(_spell_ends(axis)) for axis in axes}
    first = {key: values[0] for key, values in ends.items()}
    found = [first, *({**first, key: value} for key, values in ends.items() for value in values[1:])]
    return [Point(number, values) for number, values in enumerate(found)]


def _spell_ends(axis: Range) -> list[str]:
    return [str(int(end)) if axis.kind == "int" else f"{end:.6g}" for end in (axis.low, axis.high)]


def check_points(
    fixed: Sequence[str], points: Sequence[Point], load: Loader
) -> list[Given | GivenForCluster]:
    """Returns each point's configuration.

    Raises:
        ConfigError: the problems of all points, each once, with the points that have it; or two points that are one run.
    """
    given: list[Given | GivenForCluster] = []
    problems: dict[str, list[int]] = {}
    for point in points:
        try:
            given.append(load([*fixed, *point.words]))
        except ConfigError as error:
            for line in error.problems:
                problems.setdefault(line, []).append(point.number)
    if problems:
        raise ConfigError([f"{line}{_of_points(numbers, len(points))}" for line, numbers in problems.items()])
    same: dict[str, Point] = {}
    for point, one in zip(points, given, strict=True):
        twin = same.setdefault(freeze(one.config), point)
        if twin is not point:
            raise ConfigError(f"-m: two points are one run: {twin}   and   {point}")
    return given


def _of_points(numbers: list[int], total: int) -> str:
    if len(numbers) == total:
        return ""
    shown = ", ".join(map(str, numbers[:6])) + (", .." if len(numbers) > 6 else "")
    return f"   ({'point' if len(numbers) == 1 else 'points'} {shown})"


def write_sweep(plan: Plan, where: str, plans: Mapping[int, Mapping[str, Any]] = MappingProxyType({})) -> Sweep:
    """Makes the sweep's folder, with each point's plan.json; one that is there already is used again."""
    info = SweepInfo(
        stem=plan.given[0].stem,
        kind="search" if plan.is_search else "grid",
        where=where,
        folder=str(Path.cwd()),
        words=[word for word in plan.swept.fixed if "=" in word],
        axes=[dataclasses.asdict(axis) for axis in plan.swept.axes],
        throttle=plan.config.sweep.throttle,
        trials=plan.section_trials,
    )
    text = plan.yaml.read_text(encoding="utf-8-sig") if plan.yaml is not None else None
    frozen = [] if plan.is_search else [(p, frozen_text(g, info.stem)) for p, g in zip(plan.points, plan.given, strict=True)]
    return create(plan.sweep.path, info, text, frozen, plans)


def frozen_text(given: Given | GivenForCluster, stem: str) -> str:
    """Returns a point's configuration as its run gets it."""
    config = copy.deepcopy(given.config)
    config.run.name = stem
    return freeze(config)


def headline(plan: Plan) -> str:
    """Returns `onc_lr-2b81f0: 2 lr x 3 seeds, 6 runs`."""
    if plan.is_search:
        keys = ", ".join(axis.key for axis in plan.swept.axes)
        return f"{plan.sweep.name}: a search over {keys}, {plan.num_runs} trials"
    counts = [(len(axis.values), axis.key.rsplit(".", 1)[-1]) for axis in plan.swept.axes if isinstance(axis, Axis)]
    spelled = " x ".join(f"{count} {'seeds' if name == 'seed' else name}" for count, name in counts)
    return f"{plan.sweep.name}: {spelled}, {plan.num_runs} runs"


def show_points(screen: Console, plan: Plan) -> None:
    """Prints the points of a grid."""
    for point in [] if plan.is_search else plan.points:
        screen.print(f"  {point.number:>4}  {point}", markup=False, soft_wrap=True)
