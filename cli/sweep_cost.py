"""What all points of a sweep cost together, and whether the budgets allow it; asked before anything is submitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.configured import GivenForCluster
from cli.counting import count_data
from cli.sweep_plan import Plan
from configs.durations import parse_seconds
from configs.errors import LaunchError
from configs.memory import model_of
from launch.plan import Plan as RunPlan
from launch.plan import Size, budget_problem, make_plan


@dataclass(frozen=True, slots=True)
class SweepCost:
    """Of all points together: words for the screen, plan.json by point, the budget that it exceeds or None."""

    text: str
    plans: dict[int, dict[str, Any]]
    problem: str | None


def cost_of(sweep: Plan, given: Sequence[GivenForCluster]) -> SweepCost:
    """Returns the cost: planned where the speed is known, else what the time limit allows one start of each run.

    Args:
        sweep: what was asked for.
        given: its points, or the ends of a search's space, whose mean counts for each trial.

    Raises:
        LaunchError: a point does not fit its GPUs.
    """
    plans = plans_of(given)
    hours = [plan.gpu_hours for plan in plans if plan is not None and plan.gpu_hours is not None]
    is_planned = len(hours) == len(given)
    first = given[0]
    limit = first.shape.gpus * parse_seconds(first.config.cluster.time) / 3600
    each = sum(hours) / len(hours) if is_planned else limit
    parent = sweep.sweep.path.parent
    problem = budget_problem(
        first.config, first.site, first.shape, each if is_planned else None, parent, this_run=sweep.sweep.name, points=sweep.num_runs
    )
    total = sweep.num_runs * each
    text = f"{total:,.3g} GPU-hours" if is_planned else f"at most {total:,.3g} GPU-hours ({sweep.num_runs} x the time limit)"
    if not first.shape.gpus:
        text = "on CPUs"
    written = {} if sweep.is_search else {number: plan.plan_json() for number, plan in enumerate(plans) if plan is not None}
    return SweepCost(text + money(sweep, plans), written, problem)


def plans_of(given: Sequence[GivenForCluster]) -> list[RunPlan | None]:
    """Returns each point's plan; None for a model whose shapes are not known. The data is counted once per kind of it."""
    counts: dict[str, Size | None] = {}
    plans: list[RunPlan | None] = []
    problems: dict[str, None] = {}
    for one in given:
        config = one.config
        key = f"{config.data} {config.objective.name} {config.model.tokenizer} {config.model.path}"
        if key not in counts:
            counts[key] = count_data(config)
        known = model_of(one.facts.model, None) is not None
        try:
            plans.append(make_plan(config, one.site, one.shape, one.facts, counts[key]) if known else None)
        except LaunchError as error:
            problems[str(error)] = None
    if problems:
        raise LaunchError("\n".join([*problems, "nothing was submitted"]))
    return plans


def money(sweep: Plan, plans: Sequence[RunPlan | None]) -> str:
    """Returns `, HK$ 53 list, 16 net` for all points, as far as every point's price is known."""
    costs = [plan.column.cost for plan in plans if plan is not None]
    found = ""
    for word in ("list", "net"):
        values = [getattr(cost, f"{word}_price").value for cost in costs]
        if costs and len(costs) == len(plans) and all(value is not None for value in values):
            total = sweep.num_runs * sum(values) / len(values)
            found += f", {costs[0].list_price.unit + ' ' if word == 'list' else ''}{total:,.0f} {word}"
    return found
