"""A sweep's table, its figure and its best.yaml: made again from the runs' files whenever somebody looks."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from configs.atomic import write_file
from launch.sweep import Outcome, Setting, Sweep, SweepInfo, best_point, compared_lines, outcomes, settings_of
from launch.sweep_best import best_yaml
from launch.sweep_queue import with_lost

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_TRIALS = 20


def tell_point(screen: Console, one: Outcome, total: int, seconds: float | None) -> None:
    """Prints one line: what has become of a point."""
    result = f"eval_loss {one.eval_loss:.3f}" if one.eval_loss is not None else one.state
    cause = f": {one.cause.splitlines()[0]}" if one.state == "failed" and one.cause else ""
    took = f"   {seconds:.0f} s" if seconds is not None else ""
    screen.print(f"  {one.point.number:>3} of {total}  {one.point}   {result}{cause}{took}", markup=False, soft_wrap=True)


def show_sweep(screen: Console, sweep: Sweep) -> None:
    """Prints the table and where the best point and the figure are, which are written first."""
    info = sweep.info()
    found = outcomes(sweep)
    if info.where == "slurm" and info.kind == "grid":
        found = with_lost(sweep, found)
    states = ", ".join(f"{count} {state}" for state, count in count_states(found).items()) or "no run yet"
    screen.print(f"{sweep.name}: {info.trials or len(found)} {'trials' if info.trials else 'runs'}, {states}", soft_wrap=True)
    if info.kind == "search":
        screen.print(trial_table(found, sweep))
    else:
        screen.print(setting_table(settings_of(found), sweep))
    written = write_products(sweep, info, found)
    if written:
        screen.print(Text("   ".join(written)), soft_wrap=True)


def count_states(found: Sequence[Outcome]) -> dict[str, int]:
    """Returns how many points are in each state, finished ones first."""
    order = ("done", "running", "waiting", "stopped", "pruned", "failed")
    return {state: count for state in order if (count := sum(one.state == state for one in found))}


def setting_table(settings: Sequence[Setting], sweep: Sweep) -> Table:
    """Returns one row per setting: seeds are repetitions, shown as mean and standard deviation."""
    keys = list(settings[0].values) if settings else []
    table = _table([*keys, "n", "eval_loss mean +- sd", "best", "failed"])
    for setting in settings:
        sd = f" +- {setting.sd:.3f}" if setting.sd is not None else ""
        failed = "; ".join(setting.failed)
        table.add_row(
            *(Text(value) for value in setting.values.values()),
            str(len(setting.losses)),
            f"{setting.mean:.3f}{sd}" if setting.mean is not None else "-",
            f"{setting.best:.3f}" if setting.best is not None else "-",
            Text(f"{failed}; retry: aisc runs retry {sweep.short}" if failed else "-"),
        )
    return table


def trial_table(found: Sequence[Outcome], sweep: Sweep) -> Table:
    """Returns one row per trial of a search, the best first."""
    keys = list(found[0].point.values) if found else []
    table = _table(["trial", *keys, "eval_loss", "state"])
    for one in sorted(found, key=lambda one: (one.eval_loss is None, one.eval_loss or 0.0))[:SHOWN_TRIALS]:
        loss = f"{one.eval_loss:.3f}" if one.eval_loss is not None else "-"
        cause = f": {one.cause.splitlines()[0]}; retry: aisc runs retry {sweep.short}" if one.state == "failed" and one.cause else ""
        table.add_row(str(one.point.number), *(Text(v) for v in one.point.values.values()), loss, Text(f"{one.state}{cause}"))
    return table


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    return table


def write_products(sweep: Sweep, info: SweepInfo, found: Sequence[Outcome]) -> list[str]:
    """Writes best.yaml and compare.svg when a point is done; returns where they are."""
    best = best_point(found)
    if best is None:
        return []
    write_file(sweep.path / "best.yaml", best_yaml(sweep, info, best))
    written = [f"best as a file: {sweep.path / 'best.yaml'}"]
    figure = sweep.path / "compare.svg"
    if is_older(figure, found):
        svg: str = importlib.import_module("train.report.figures").compare_losses(compared_lines(found))
        write_file(figure, svg)
    return [*written, f"figure: {figure}"]


def is_older(figure: Path, found: Sequence[Outcome]) -> bool:
    """True when a result has come since the figure was drawn: drawing takes a second, looking does not."""
    drawn = figure.stat().st_mtime if figure.exists() else 0.0
    return any(one.run.result_path.stat().st_mtime >= drawn for one in found if one.state == "done")
