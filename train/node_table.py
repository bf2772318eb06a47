"""The pre-flight on rank 0's output: one line per node, 80 columns; the nodes that something is wrong with first."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from train.node_figures import JobFigures
from train.node_verdict import Node, Verdict, spell, spell_rate, spell_space

MOST_ROWS = 12
_ROW = "{:<12} {:<9} {:>11} {:>6} {:>9} {:>9} {:>7} {:>9}"


def table(figures: JobFigures, verdict: Verdict, *, seconds: float, ranks: int) -> str:
    """Returns the lines to print."""
    nodes = figures.nodes
    lines = [f"pre-flight  {len(nodes)} node{'s' * (len(nodes) > 1)}, {ranks} rank{'s' * (ranks > 1)}, {seconds:.1f} s"]
    lines.append(_ROW.format("node", "devices", "matrix", "free", "send", "receive", "write", "room").rstrip())
    named = {name for finding in verdict.findings for name in finding.nodes}
    shown = sorted(nodes, key=lambda node: node.name not in named)[:MOST_ROWS]
    lines += [_row(node, is_missing=node.name in figures.missing) for node in shown]
    if len(nodes) > len(shown):
        lines.append(f"and {len(nodes) - len(shown)} more, in the result")
    if figures.all_reduce is not None:
        lines.append(f"all-reduce   {spell_rate(figures.all_reduce)} over all ranks")
    if not verdict.findings:
        lines.append("sound")
    else:
        words = f"avoid {', '.join(verdict.avoid)}: " if verdict.avoid else "failed: "
        lines += textwrap.wrap(words + verdict.cause, 80, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def _row(node: Node, *, is_missing: bool) -> str:
    if is_missing or not node.devices:
        return f"{node.name[:12]:<12} no answer" if is_missing else f"{node.name[:12]:<12} not measured"
    disk: Mapping[str, Any] = node.disks.get("local") or node.disks.get("temporary") or {}
    return _ROW.format(
        node.name[:12],
        f"{node.devices.get('count')} {node.devices.get('kind')}",
        "-" if node.matrix is None else f"{spell(node.matrix.best)} TF/s",
        "-" if node.free_fraction is None else f"{node.free_fraction:.0%}",
        "-" if node.send is None else spell_rate(node.send.best),
        "-" if node.receive is None else spell_rate(node.receive.best),
        f"{disk['latency_ms']:.0f} ms" if "latency_ms" in disk else "-",
        "full" if disk.get("full") else spell_space(disk["free_gb"]) if "free_gb" in disk else "-",
    ).rstrip()
