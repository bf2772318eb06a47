"""GPU-hours and money of a run, and what budgets leave for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from configs.durations import parse_seconds
from configs.facts import Shape
from configs.runfolder import read_json
from configs.schema import RunConfig
from configs.site import Partition, Site
from launch.plan.figures import Figure, unknown
from launch.records import read_starts


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a whole run: GPU-hours; money at list price and after the subsidy, in the site's currency."""

    gpu_hours: Figure
    list_price: Figure
    net_price: Figure


def cost_of(wall_h: Figure, gpus: int, site: Site, partition: Partition | None, project: str | None) -> Cost:
    """Returns the cost of `gpus` GPUs for the wall time; money is unknown while the site file lacks a price."""
    if wall_h.value is None:
        hours = unknown("GPU-hours", wall_h.missing)
    else:
        band = None if wall_h.band is None else wall_h.band * gpus
        hours = Figure(
            wall_h.value * gpus, "GPU-hours", wall_h.basis, f"wall x GPUs = {wall_h.value:.4g} h x {gpus}", wall_h.source, band
        )
    price, ask = price_of(site, partition)
    currency = site.price.currency
    if price is None or hours.value is None:
        missing = ask or hours.missing
        return Cost(hours, unknown(currency, missing), unknown(currency, missing))
    source = f"{site.path}" + (f", {site.price.source}" if site.price.source else "")
    basis = hours.basis  # the price itself is given
    listed = Figure(
        hours.value * price, currency, basis, f"GPU-hours x list price = {hours.value:.4g} x {currency} {price:g}", source, _times(hours.band, price)
    )
    subsidy = site.subsidy(project)
    if subsidy is None:
        sentence = f"net price: {site.path} lacks price.subsidy, the share of the list price that your grant pays (0 to 1)"
        return Cost(hours, listed, unknown(currency, sentence))
    net = Figure(
        hours.value * price * (1 - subsidy),
        currency,
        basis,
        f"list x (1 - subsidy) = {hours.value * price:.4g} x (1 - {subsidy:g})",
        source,
        _times(hours.band, price * (1 - subsidy)),
    )
    return Cost(hours, listed, net)


def price_of(site: Site, partition: Partition | None) -> tuple[float | None, str]:
    """Returns the list price of one GPU for one hour, or the sentence that asks for it."""
    if partition is not None and partition.price_per_gpu_hour is not None:
        return partition.price_per_gpu_hour, ""
    if partition is not None and partition.price_per_node_hour is not None and partition.gpus_per_node:
        return partition.price_per_node_hour / partition.gpus_per_node, ""
    if site.path is None:
        return None, "money: no site file; price_per_gpu_hour of a partition goes there (docs/on-your-cluster.md has one to copy)"
    return None, f"money: {site.path} lacks price_per_gpu_hour of this partition; the centre's price list has it"


def needed_hours(config: RunConfig, gpu_hours: float | None, shape: Shape) -> tuple[float, str]:
    """Returns the GPU-hours that a budget is asked for, and how they were found: planned, else one start's time limit."""
    if gpu_hours is not None:
        return gpu_hours, "planned"
    limit = parse_seconds(config.cluster.time) / 3600 * shape.gpus
    return limit, f"one start of cluster.time={config.cluster.time}, as the speed is not known"


def budget_problem(
    config: RunConfig, site: Site, shape: Shape, gpu_hours: float | None, runs: Path, *, this_run: str = "", points: int = 1
) -> str | None:
    """Returns the sentence that says which budget this run exceeds; None when it fits all of them.

    Args:
        config: resolved; site, shape: where it goes.
        gpu_hours: planned for one point; None: not known.
        runs: folder of all runs, for what the project has used.
        this_run: name of the run itself, which does not count against itself.
        points: of a sweep.
    """
    each, how = needed_hours(config, gpu_hours, shape)
    need = each * points
    what = f"{need:,.1f} GPU-hours ({how})" if points == 1 else f"{need:,.1f} GPU-hours ({points} x {each:,.1f}, {how})"
    limit = config.cluster.max_gpu_hours
    if limit is not None and need > limit:
        return f"cluster.max_gpu_hours={limit:g}: this takes {what}; plan a cheaper one (aisc plan) or raise the limit"
    left = budget_left(config, site, runs, this_run=this_run)
    if left is not None and need > left:
        project = config.run.project
        return (
            f"run.project={project}: this takes {what}, {max(0.0, left):,.1f} of {site.projects[str(project)].max_gpu_hours:,.0f} "
            f"are left ({site.path}: projects.{project}.max_gpu_hours)"
        )
    return None


def budget_left(config: RunConfig, site: Site, runs: Path, *, this_run: str = "") -> float | None:
    """Returns the GPU-hours that the project's budget leaves; None when it has none."""
    project = site.projects.get(config.run.project or "")
    if project is None or project.max_gpu_hours is None:
        return None
    return project.max_gpu_hours - used_hours(runs, str(config.run.project), this_run=this_run)


def used_hours(runs: Path, project: str, *, this_run: str = "") -> float:
    """Returns the GPU-hours that the runs of a project have taken, or are going to take while they are in the queue."""
    folders = [path for path in runs.iterdir() if path.is_dir() and path.name != this_run] if runs.is_dir() else []
    points = [path.parent for path in runs.glob("*/*/point.json") if path.parent.parent.name != this_run]
    stages = [path.parent for path in runs.glob("*/*/launch.yaml") if (path.parents[1] / "chain.json").exists()]
    points += [run for run in stages if run.parent.name != this_run]
    return sum(hours_of(folder) for folder in [*folders, *points] if project_of(folder) == project)


def hours_of(run: Path) -> float:
    """Returns a run's GPU-hours: accounted or recorded; what was planned while more than that is to come."""
    goodput, plan = read_json(run / "goodput.json") or {}, read_json(run / "plan.json") or {}
    starts = read_starts(run)
    recorded = sum((s.ended - s.began) / 3600 * len(s.nodes) * s.gpus_per_node for s in starts if s.ended is not None)
    accounted = float(goodput.get("total") or 0.0) if goodput.get("unit") == "GPU-hours" else 0.0
    used = max(recorded, accounted)
    verdicts = [start.verdict for start in starts]
    is_over = (run / "result.json").exists() or (bool(verdicts) and verdicts[-1] in ("finished", "failed", "stopped", "gave up"))
    return used if is_over else max(used, float(plan.get("gpu_hours") or 0.0))


def project_of(run: Path) -> str | None:
    """Returns the project of a run: of its plan, else of the configuration that was submitted or run."""
    plan = read_json(run / "plan.json")
    if plan is not None and "project" in plan:
        return None if plan["project"] is None else str(plan["project"])
    for path in (run / "launch.yaml", *sorted(run.glob("attempts/*/config.yaml"))):
        if path.is_file():
            values: Any = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
            found = values.get("run", {}).get("project") if isinstance(values, dict) else None
            return None if found is None else str(found)
    return None


def _times(band: float | None, factor: float) -> float | None:
    return None if band is None else band * factor
