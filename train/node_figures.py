"""From the reports of all ranks, lap by lap, to the figures of each node; and what earlier starts have left."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.runfolder import read_json
from train.node_verdict import Node, Rate

# One rank's figures in one lap: plain values, as they are written to the result.
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobFigures:
    """All nodes in the order of the job; `missing`: nodes that did not answer, with the words for it."""

    nodes: list[Node]
    missing: dict[str, str]
    all_reduce: float | None


def job_figures(laps: Sequence[Sequence[Report]], missing: Mapping[int, str]) -> JobFigures:
    """Returns the best figures over the laps.

    Args:
        laps: every rank's report, in rank order, of each lap.
        missing: ranks that did not answer, with the words for it.
    """
    names = list(dict.fromkeys(report["node"] for report in laps[0]))
    absent: dict[str, str] = {}
    for rank, words in missing.items():
        absent.setdefault(laps[0][rank]["node"], words)
    links = {way: _links(laps, names, absent, way) for way in ("send", "receive")}
    clocks = _clocks(laps)
    nodes = [_node(name, laps, {way: links[way].get(name) for way in links}, clocks.get(name)) for name in names]
    reduced = [report["all_reduce_gb_per_s"] for lap in laps for report in lap if "all_reduce_gb_per_s" in report]
    return JobFigures(nodes, absent, max(reduced, default=None))


def _node(name: str, laps: Sequence[Sequence[Report]], links: Mapping[str, Rate | None], clock_s: float | None) -> Node:
    by_rank: dict[int, list[Report]] = {}
    for report in (report for lap in laps for report in lap if report["node"] == name):
        by_rank.setdefault(report["rank"], []).append(report)
    reports = [report for rank in by_rank.values() for report in rank]
    devices = dict(_first(reports, "devices") or {})
    if devices.get("kind") == "GPU" and devices["count"] == 1:  # each rank sees its own alone
        devices["count"] = len(by_rank)
    matrices = [
        rate
        for rank in by_rank.values()
        if (rate := _rate([(r["matrix_tflops"], r["matrix_median"]) for r in rank if "matrix_tflops" in r])) is not None
    ]
    shares = [max(free) for rank in by_rank.values() if (free := [r["memory"]["free_fraction"] for r in rank if "memory" in r])]
    return Node(
        name=name,
        devices=devices,
        matrix=min(matrices, key=lambda rate: rate.best, default=None),
        free_fraction=min(shares, default=None),
        disks=_disks(reports),
        versions=_first(reports, "versions") or {},
        cards=[report["card"] for report in reports if report.get("card")],
        send=links["send"],
        receive=links["receive"],
        clock_s=clock_s,
        signature=_first(reports, "signature"),
        problem=_first(reports, "problem") or "",
    )


def _first(reports: Sequence[Report], key: str) -> Any:
    return next((report[key] for report in reports if key in report), None)


def _rate(pairs: Sequence[tuple[float, float]]) -> Rate | None:
    """Returns the best of several (best, median), and how far it is above what was usual."""
    if not pairs:
        return None
    best, usual = max(best for best, _ in pairs), statistics.median(median for _, median in pairs)
    return Rate(best, best / usual if usual > 0 else 1.0)


def _disks(reports: Sequence[Report]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for report in reports:
        for place, disk in report.get("disks", {}).items():
            before = found.get(place)
            if before is None or disk.get("latency_ms", float("inf")) < before.get("latency_ms", float("inf")):
                found[place] = disk
    return found


def _links(laps: Sequence[Sequence[Report]], names: Sequence[str], absent: Mapping[str, str], way: str) -> dict[str, Rate]:
    """Returns GB/s that each node sends (receives), with the best of its partners; links to nodes that are gone say nothing.

    Ranks of a node that exchange at the same time, one per GPU, are added up.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for lap in laps:
        sums: dict[tuple[str, str], tuple[float, float]] = {}
        for link in (link for report in lap for link in report.get("links", [])):
            pair = (names[link["sender"]], names[link["receiver"]])
            best, median = sums.get(pair, (0.0, 0.0))
            sums[pair] = (best + link["gb_per_s"], median + link["median"])
        for pair, rates in sums.items():
            found.setdefault(pair, []).append(rates)
    by_node: dict[str, Rate] = {}
    for (sender, receiver), laps_of in found.items():
        rate, node = _rate(laps_of), sender if way == "send" else receiver
        if rate is not None and not {sender, receiver} & set(absent) and (node not in by_node or rate.best > by_node[node].best):
            by_node[node] = rate
    return by_node


def _clocks(laps: Sequence[Sequence[Report]]) -> dict[str, float]:
    """Returns each node's clock minus the first rank's, in seconds: the smallest difference seen, waking up takes time."""
    found: dict[str, float] = {}
    for lap in laps:
        base = lap[0].get("clock")
        for report in lap:
            if base and report.get("clock"):
                seen = min((own - first for own, first in zip(report["clock"], base, strict=True)), key=abs)
                if abs(seen) < abs(found.get(report["node"], float("inf"))):
                    found[report["node"]] = seen
    return found


def known_before(run: Path, job: str) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """Returns pairs that earlier starts of this job could not tell apart, and the versions of a start that was sound."""
    suspects: list[tuple[str, ...]] = []
    versions: dict[str, str] = {}
    try:
        paths = sorted((run / "jobs").glob("*.check.json"), key=lambda path: path.stat().st_mtime)
    except OSError:
        return suspects, versions
    for path in paths:
        said = read_json(path) or {}
        is_same_job = path.name.partition(".")[0] == job.partition(".")[0]
        if is_same_job and path.name != f"{job}.check.json" and said.get("suspects"):
            suspects.append(tuple(said["suspects"]))
        reports = said["laps"][0] if said.get("code") == 0 and said.get("laps") else []
        versions = next((dict(report["versions"]) for report in reports if "versions" in report), versions)
    return suspects, versions
