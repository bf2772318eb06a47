"""What the run's hours went into: goodput.json, as `aisc job end` or `aisc runs goodput` wrote it, as a table and a figure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from configs.runfolder import RunFolder, read_json
from configs.timekeeping import PHASES, UNKNOWN
from train.report.figures import as_svg, new_figure
from train.report.section import Section

COLORS = {
    "start-up": "#9e9e9e",
    "prepare": "#bcbd22",
    "compile": "#17becf",
    "train": "#2ca02c",
    "evaluate": "#1f77b4",
    "save": "#9467bd",
    "redone": "#ff7f0e",
    "lost": "#d62728",
    "tail": "#c7c7c7",
    UNKNOWN: "#e0e0e0",
}
SHOWN_STARTS = 40


def section(run: RunFolder) -> Section | None:
    """Returns hours, shares and cost by phase; None when nobody has made the account yet."""
    account = read_json(run.path / "goodput.json")
    if account is None or not account["total"]:
        return None
    costs, share_net = account["cost_by_phase"], 1 - (account["prices"]["subsidy"] or 0.0)
    rows = []
    for phase in (*PHASES, UNKNOWN):
        if hours := account["hours"].get(phase, 0.0):
            rows.append((phase, f"{hours:.3f}", f"{hours / account['total']:.1%}", *_money(costs, costs.get(phase, 0.0), share_net)))
    rows.append(("total", f"{account['total']:.3f}", "100 %", *_money(costs, account["cost"] or 0.0, share_net)))
    currency = account["prices"]["currency"]
    header = ("phase", account["unit"], "share", *((f"{currency} list", "net") if costs else ()))
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(account["as_of"]))
    starts = len(account["segments"])
    compared = account["not_compared"]
    slurm = f"Not compared with Slurm's accounting: {compared}." if compared else "Compared with Slurm's accounting start by start."
    note = f"As of {when}: {starts} starts, waited {account['queue_s']:,.0f} s in the queue. {slurm}"
    return Section("Goodput", tuple(rows), header, svg=draw([account]), note=note)


def _money(costs: Mapping[str, float], cost: float, share_net: float) -> tuple[str, ...]:
    return (f"{cost:,.2f}", f"{cost * share_net:,.2f}") if costs else ()


def draw(accounts: Sequence[Mapping[str, Any]]) -> str:
    """Returns a stacked bar per start as an `<svg>` element, of one run or of several under each other."""
    bars = [(_name(account, part, len(accounts) > 1), part["seconds"]) for account in accounts for part in account["segments"]]
    bars = bars[-SHOWN_STARTS:]
    figure = new_figure(7.6, 1.1 + 0.28 * max(2, len(bars)))
    axes = figure.add_subplot()
    names = [name for name, _ in bars]
    left = [0.0] * len(bars)
    longest = max((sum(seconds.values()) for _, seconds in bars), default=0.0)
    unit_s, unit = (3600.0, "hours") if longest > 7200 else (60.0, "minutes") if longest > 300 else (1.0, "seconds")
    for phase, color in COLORS.items():
        widths = [seconds.get(phase, 0.0) / unit_s for _, seconds in bars]
        if any(widths):
            axes.barh(range(len(bars)), widths, left=left, color=color, label=phase)
            left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(bars)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    if bars:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return as_svg(figure)


def _name(account: Mapping[str, Any], part: Mapping[str, Any], is_one_of_many: bool) -> str:
    attempts = part["attempts"]
    name = f"{part['job_id']}.{part['restart']}" if part["job_id"] is not None else f"attempt {attempts[0] if attempts else '-'}"
    return f"{account['run']} {name}" if is_one_of_many else name
