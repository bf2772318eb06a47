"""From the reports of all ranks, lap by lap, to the figures of each node; and what earlier starts have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.runfolder import read_json
from train.node_verdict import Node

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
    sending, receiving = _links(laps, names, absent)
    clocks = _clocks(laps)
    nodes = [_node(name, laps, sending.get(name), receiving.get(name), clocks.get(name)) for name in names]
    reduced = [report["all_reduce_gb_per_s"] for lap in laps for report in lap if "all_reduce_gb_per_s" in report]
    return JobFigures(nodes, absent, max(reduced, default=None))


def _node(
    name: str, laps: Sequence[Sequence[Report]], send: float | None, receive: float | None, clock_s: float | None
) -> Node:
    ranks = [[report for report in lap if report["node"] == name] for lap in laps]
    reports = [report for lap in ranks for report in lap]
    first = ranks[0]
    devices = dict(next((report["devices"] for report in first if "devices" in report), {}))
    if devices.get("kind") == "GPU" and devices["count"] == 1:  # each rank sees its own alone
        devices["count"] = len(first)
    matrices = [
        max(rates)
        for report in first
        if (rates := [r["matrix_tflops"] for r in reports if r["rank"] == report["rank"] and "matrix_tflops" in r])
    ]
    shares = [
        max(free)
        for report in first
        if (free := [r["memory"]["free_fraction"] for r in reports if r["rank"] == report["rank"] and "memory" in r])
    ]
    return Node(
        name=name,
        devices=devices,
        matrix=min(matrices, default=None),
        free_fraction=min(shares, default=None),
        disks=_disks(reports),
        versions=next((report["versions"] for report in first if "versions" in report), {}),
        cards=[report["card"] for report in first if report.get("card")],
        send=send,
        receive=receive,
        clock_s=clock_s,
        signature=next((report["signature"] for report in first if "signature" in report), None),
        problem=next((report["problem"] for report in reports if report.get("problem")), ""),
    )


def _disks(reports: Sequence[Report]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for report in reports:
        for place, disk in report.get("disks", {}).items():
            before = found.get(place)
            if before is None or disk.get("latency_ms", float("inf")) < before.get("latency_ms", float("inf")):
                found[place] = disk
    return found


def _links(
    laps: Sequence[Sequence[Report]], names: Sequence[str], absent: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns GB/s sent and received by node, with the best of its partners; links to nodes that are gone say nothing.

    Ranks of a node that exchange at the same time, one per GPU, are added up.
    """
    best: dict[tuple[int, int], float] = {}
    for lap in laps:
        sums: dict[tuple[int, int], float] = {}
        for report in lap:
            for sender, receiver, rate, _ in report.get("links", []):
                sums[sender, receiver] = sums.get((sender, receiver), 0.0) + rate
        best |= {pair: max(rate, best.get(pair, 0.0)) for pair, rate in sums.items()}
    sending: dict[str, float] = {}
    receiving: dict[str, float] = {}
    for (sender, receiver), rate in best.items():
        one, two = names[sender], names[receiver]
        if one not in absent and two not in absent:
            sending[one] = max(rate, sending.get(one, 0.0))
            receiving[two] = max(rate, receiving.get(two, 0.0))
    return sending, receiving


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
