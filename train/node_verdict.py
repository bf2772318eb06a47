"""From the figures of all nodes to one verdict: sound, a node to avoid, or something that the next start would meet again.

Pure functions on plain values; nothing here measures. A node is named when it misses a bound of the site file, or when it
stands out from its peers: below `peer_ratio` of their median, and below each of them. With a single peer the ratio is
squared: two nodes differ by chance more often than one of many does from all others. And a difference counts only as far
as it is more than what repeated measurements differ by: where cores or switches are shared, that is much.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.site import Bounds

EXIT_SOUND, EXIT_WRONG, EXIT_AVOID = 0, 2, 76
# No network between nodes that train together is as slow as this, whatever the site file leaves unsaid.
CRAWL_GB_PER_S = 0.01
# Disks that others use too are slow now and then: only what is far out is named.
SLOW_DISK_RATIO, SLOW_DISK_MS = 10.0, 250.0
FULL_RATIO, FULL_GB = 0.1, 1.0
# What chance can do; such a finding is measured again before it counts.
NOISY = ("matrix", "send", "receive", "all-reduce", "latency", "memory", "skew")


@dataclass(frozen=True, slots=True)
class Rate:
    """The best of several measurements, and how many times the usual one it is: 1 on a machine that is ours alone."""

    best: float
    spread: float = 1.0


@dataclass(frozen=True, slots=True)
class Node:
    """One node's figures, over its ranks: the slowest matrix product, the least memory, the first rank's disks.

    Attributes:
        devices: kind, count and names of what each rank sees, the first rank's.
        send, receive: GB/s with the best of the nodes it was paired with; None: not measured.
        clock_s: its clock minus that of rank 0.
        problem: what kept it from being measured.
    """

    name: str
    devices: Mapping[str, Any] = field(default_factory=dict)
    matrix: Rate | None = None
    free_fraction: float | None = None
    disks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    cards: Sequence[Mapping[str, Any]] = ()
    send: Rate | None = None
    receive: Rate | None = None
    clock_s: float | None = None
    signature: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. `nodes`: the one it is, or two of which it is one; empty: of no node in particular."""

    what: str
    nodes: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the figures.

    Attributes:
        gpu: name of the planned card, `H800`; None: not stated. `gpus_per_node`: planned ones, 0: CPUs.
        missing: nodes whose ranks did not come or did not report, with the words for it.
        suspects: pairs of nodes that earlier starts of this job could not tell apart.
        versions: those of an earlier start that was found sound.
    """

    gpu: str | None = None
    gpus_per_node: int = 0
    missing: Mapping[str, str] = field(default_factory=dict)
    suspects: Sequence[tuple[str, ...]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`cause` is one sentence, empty when all is sound; `again`: nodes avoided before that have turned out to be sound."""

    code: int
    cause: str = ""
    avoid: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    suspects: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def judge(nodes: Sequence[Node], all_reduce: float | None, bounds: Bounds, known: Known) -> Verdict:
    """Returns the verdict; `nodes` in the order of the job, those that did not answer included."""
    found = find(nodes, all_reduce, bounds, known)
    if not found:
        return Verdict(EXIT_SOUND)
    for what in dict.fromkeys(finding.what for finding in found):
        named = {name for finding in found if finding.what == what and len(finding.nodes) == 1 for name in finding.nodes}
        if len(nodes) > 1 and named == {node.name for node in nodes}:
            first = next(finding for finding in found if finding.what == what)
            cause = f"all {len(nodes)} nodes: {first.sentence}; the bound, the partition or the plan is wrong, not a node"
            return Verdict(EXIT_WRONG, cause, findings=found)
    sure = [finding for finding in found if len(finding.nodes) == 1]
    if sure:
        avoid = list(dict.fromkeys(finding.nodes[0] for finding in sure))
        return Verdict(EXIT_AVOID, sure[0].sentence, avoid, findings=found)
    pair = next((finding for finding in found if finding.nodes), None)
    if pair is None:
        return Verdict(EXIT_WRONG, found[0].sentence, findings=found)
    return _one_of_two(pair, known, found)


def find(nodes: Sequence[Node], all_reduce: float | None, bounds: Bounds, known: Known) -> list[Finding]:
    """Returns everything wrong, the surest first."""
    missing = _missing(nodes, known)
    here = [node for node in nodes if node.name not in known.missing and not node.problem]
    found = [
        *missing,
        *(Finding("problem", (node.name,), f"{node.name}: {node.problem}") for node in nodes if node.problem),
        *_devices(here, known),
        *_signatures(here),
        *_versions(here, known),
        *_disks(here, bounds),
        *_cards(here),
        *_rates(here, "matrix", "matrix product", _tflops, bounds.matmul_tflops, bounds),
        *_memory(here, bounds),
        *_links(here, bounds),
        *_clocks(here, bounds),
    ]
    least = bounds.all_reduce_gb_per_s
    if not found and all_reduce is not None and least is not None and all_reduce < least:
        sentence = f"all-reduce {spell_rate(all_reduce)}, bounds.all_reduce_gb_per_s={least:g}; every pair of nodes is sound: "
        found.append(Finding("all-reduce", (), sentence + "look at network.environment of the site file, or at the bound"))
    return found


def below_peers(own: Rate, peers: Sequence[Rate], ratio: float) -> bool:
    """True when `own` stands out below its peers: under `ratio` of their median (squared for one peer), under each."""
    if not peers:
        return False
    rates = [peer.best for peer in peers]
    noise = max(own.spread, statistics.median([own.spread, *(peer.spread for peer in peers)]))
    return own.best * noise < (ratio if len(peers) > 1 else ratio**2) * statistics.median(rates) and own.best < min(rates)


def spell(value: float) -> str:
    """Returns three significant digits, `412`, `0.0312`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spell_rate(gb_per_s: float) -> str:
    """Returns `1.24 GB/s`, `966 kB/s`."""
    for unit, size in (("GB/s", 1.0), ("MB/s", 1e-3), ("kB/s", 1e-6)):
        if gb_per_s >= size:
            return f"{spell(gb_per_s / size)} {unit}"
    return f"{spell(1e9 * gb_per_s)} B/s"


def spell_space(gb: float) -> str:
    """Returns `75 GB`, `1.05 MB`."""
    return f"{spell(gb)} GB" if gb >= 1 or gb == 0 else f"{spell(1000 * gb)} MB"


def _tflops(rate: float) -> str:
    return f"{spell(rate)} TFLOP/s"


def _one_of_two(pair: Finding, known: Known, found: list[Finding]) -> Verdict:
    """Two nodes and no third to ask: an earlier start may tell, else the second one is avoided and the next start tells."""
    for name in pair.nodes:
        before = [earlier for earlier in known.suspects if name in earlier and set(earlier) != set(pair.nodes)]
        if before:
            others = [other for earlier in before for other in earlier if other != name]
            sentence = f"{name}: {pair.sentence}; the same with {', '.join(others)} in an earlier start"
            return Verdict(EXIT_AVOID, sentence, [name], again=others, findings=found)
    avoid = pair.nodes[-1]
    sentence = f"{' or '.join(pair.nodes)}: {pair.sentence}; which of the two is not known, {avoid} is avoided first"
    return Verdict(EXIT_AVOID, sentence, [avoid], suspects=list(pair.nodes), findings=found)


def _missing(nodes: Sequence[Node], known: Known) -> list[Finding]:
    names = [node.name for node in nodes]
    if len(names) > 2 and len(known.missing) == len(names) - 1:
        alone = next(name for name in names if name not in known.missing)
        return [Finding("answer", (alone,), f"{alone} could reach none of the other {len(known.missing)} nodes")]
    return [Finding("answer", (name,), f"{name} {words}") for name, words in known.missing.items()]


def _devices(nodes: Sequence[Node], known: Known) -> list[Finding]:
    found = []
    for node in nodes:
        count, kind, names = node.devices.get("count", 0), node.devices.get("kind"), node.devices.get("names", [])
        if kind == "GPU" and known.gpus_per_node and count != known.gpus_per_node:
            found.append(Finding("devices", (node.name,), f"{node.name} has {count} GPUs, planned {known.gpus_per_node}"))
        wrong = [name for name in names if known.gpu and kind == "GPU" and _plain(known.gpu) not in _plain(name)]
        if wrong:
            found.append(Finding("devices", (node.name,), f"{node.name} has {wrong[0]}, planned {known.gpu}"))
    if found:
        return found
    return _odd_ones(nodes, "devices", lambda node: f"{node.devices.get('count')} x {', '.join(sorted(set(node.devices.get('names', []))))}")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _signatures(nodes: Sequence[Node]) -> list[Finding]:
    return _odd_ones(nodes, "run folder", lambda node: f"a launch.yaml {node.signature} in the run folder")


def _versions(nodes: Sequence[Node], known: Known) -> list[Finding]:
    if known.versions and len(nodes) == 2:  # two of them cannot outvote each other: what was sound before has a voice
        nodes = [*nodes, Node("an earlier start", versions=known.versions)]
    names = sorted({name for node in nodes for name in node.versions})
    for name in names:
        found = _odd_ones(nodes, "versions", lambda node, name=name: f"{name} {node.versions.get(name, 'missing')}")
        if found:
            return [finding for finding in found if "an earlier start" not in finding.nodes]
    return []


def _odd_ones(nodes: Sequence[Node], what: str, look: Any) -> list[Finding]:
    """Returns a finding for each node that differs from the most; for both when two nodes differ."""
    seen = {node.name: look(node) for node in nodes}
    counts = Counter(seen.values()).most_common()
    if len(counts) < 2:
        return []
    if counts[0][1] == counts[1][1]:
        text = ", ".join(f"{name} has {value}" for name, value in seen.items())
        return [Finding(what, tuple(seen) if len(seen) == 2 else (), text)]
    usual = counts[0][0]
    agree = [name for name, value in seen.items() if value == usual]
    others = ", ".join(sorted(agree, key=lambda name: (name.startswith("an earlier"), name))) if len(agree) <= 2 else f"{len(agree)} others"
    return [Finding(what, (name,), f"{name} has {value}; {others}: {usual}") for name, value in seen.items() if value != usual]


def _disks(nodes: Sequence[Node], bounds: Bounds) -> list[Finding]:
    found = []
    for place in dict.fromkeys(place for node in nodes for place in node.disks):
        disks = {node.name: node.disks[place] for node in nodes if place in node.disks}
        for name, disk in disks.items():
            others = [other for node, other in disks.items() if node != name]
            words = _disk_words(disk, others, bounds)
            if words:
                kind = "latency" if words.startswith("takes") else f"{place} disk"
                found.append(Finding(kind, (name,), f"{name}: {disk['path']} {words}"))
    return found


def _disk_words(disk: Mapping[str, Any], others: Sequence[Mapping[str, Any]], bounds: Bounds) -> str:
    free, latency = disk.get("free_gb"), disk.get("latency_ms")
    peers_free = [other["free_gb"] for other in others if "free_gb" in other]
    peers = f"; median of its peers {spell_space(statistics.median(peers_free))}" if peers_free else ""
    if disk.get("full"):
        return f"is full: {spell_space(free or 0.0)} free{peers}"
    if "error" in disk:
        return f"cannot be written to: {disk['error']}"
    if free is not None and bounds.disk_free_gb is not None and free < bounds.disk_free_gb:
        return f"has {spell_space(free)} free, bounds.disk_free_gb={bounds.disk_free_gb:g}{peers}"
    if free is not None and peers_free and free < FULL_GB and free < FULL_RATIO * statistics.median(peers_free):
        return f"has {spell_space(free)} free{peers}"
    peers_ms = [other["latency_ms"] for other in others if "latency_ms" in other]
    peers = f"; median of its peers {spell(statistics.median(peers_ms))} ms" if peers_ms else ""
    if latency is not None and bounds.disk_latency_ms is not None and latency > bounds.disk_latency_ms:
        return f"takes {spell(latency)} ms for a small write, bounds.disk_latency_ms={bounds.disk_latency_ms:g}{peers}"
    if latency is not None and peers_ms and latency > max(SLOW_DISK_MS, SLOW_DISK_RATIO * max(peers_ms)):
        return f"takes {spell(latency)} ms for a small write{peers}"
    return ""


def _cards(nodes: Sequence[Node]) -> list[Finding]:
    found = []
    for node in nodes:
        for card in node.cards:
            errors = card.get("uncorrected_errors", 0)
            if errors:
                sentence = f"{node.name}, GPU {card.get('index')}: {errors} memory errors that ECC could not correct"
                found.append(Finding("ecc", (node.name,), sentence))
            if card.get("slowed_by_hardware"):
                sentence = f"{node.name}, GPU {card.get('index')}: slowed down by its hardware (heat or power), {card.get('clock_mhz')} MHz"
                found.append(Finding("clock", (node.name,), sentence))
    return found


def _rates(nodes: Sequence[Node], key: str, words: str, say: Callable[[float], str], least: float | None, bounds: Bounds) -> list[Finding]:
    """Returns the nodes whose rate `key` misses the bound `least` or stands out below the peers'."""
    rates = {node.name: rate for node in nodes if (rate := getattr(node, key)) is not None}
    found = []
    for name, rate in rates.items():
        peers = [other for node, other in rates.items() if node != name]
        beside = f", median of its peers {say(statistics.median(peer.best for peer in peers))}" if peers else ""
        figure = f"{name}: {words} {say(rate.best)}"
        if least is not None and rate.best < least:
            found.append((rate.best, Finding(key, (name,), f"{figure}, bound {say(least)}{beside}")))
        elif below_peers(rate, peers, bounds.peer_ratio):
            found.append((rate.best, Finding(key, (name,), f"{figure}{beside} (less than {bounds.peer_ratio:g} of it)")))
    return [finding for _, finding in sorted(found, key=lambda pair: pair[0])]


def _memory(nodes: Sequence[Node], bounds: Bounds) -> list[Finding]:
    """GPUs are ours alone, so peers count; the memory of a node may be shared with other jobs: only a bound counts."""
    is_gpu = any(node.devices.get("kind") == "GPU" for node in nodes)
    found = []
    shares = {node.name: node.free_fraction for node in nodes if node.free_fraction is not None}
    for name, share in shares.items():
        peers = [other for node, other in shares.items() if node != name]
        beside = f", median of its peers {statistics.median(peers):.0%}" if peers else ""
        least = bounds.free_memory_fraction
        if least is not None and share < least:
            found.append(Finding("memory", (name,), f"{name}: {share:.0%} of memory is free, bound {least:.0%}{beside}"))
        elif is_gpu and below_peers(Rate(share), [Rate(peer) for peer in peers], bounds.peer_ratio):
            found.append(Finding("memory", (name,), f"{name}: {share:.0%} of memory is free{beside}"))
    return found


def _links(nodes: Sequence[Node], bounds: Bounds) -> list[Finding]:
    least = max(bounds.pairwise_gb_per_s or 0.0, CRAWL_GB_PER_S)
    if len(nodes) == 2:
        rates: list[tuple[Rate | None, str]] = [(nodes[0].send, "send"), (nodes[0].receive, "receive")]
        slow = [(rate.best, key) for rate, key in rates if rate is not None and rate.best < least]
        if not slow:
            return []
        rate, key = min(slow)
        first, second = (nodes[0].name, nodes[1].name) if key == "send" else (nodes[1].name, nodes[0].name)
        sentence = f"{spell_rate(rate)} from {first} to {second}, bound {spell_rate(least)}"
        return [Finding(key, (nodes[0].name, nodes[1].name), sentence)]
    return [
        *_rates(nodes, "send", "sends to other nodes at", spell_rate, least, bounds),
        *_rates(nodes, "receive", "receives from other nodes at", spell_rate, least, bounds),
    ]


def _clocks(nodes: Sequence[Node], bounds: Bounds) -> list[Finding]:
    clocks = {node.name: node.clock_s for node in nodes if node.clock_s is not None}
    if len(clocks) < 2:
        return []
    if len(clocks) == 2:
        (first, one), (second, two) = clocks.items()
        if abs(one - two) <= bounds.clock_skew_s:
            return []
        return [Finding("skew", (first, second), f"their clocks differ by {abs(one - two):.1f} s, bound {bounds.clock_skew_s:g}")]
    middle = statistics.median(clocks.values())
    return [
        Finding("skew", (name,), f"{name}: its clock is {clock - middle:+.1f} s off its peers' median, bound {bounds.clock_skew_s:g}")
        for name, clock in clocks.items()
        if abs(clock - middle) > bounds.clock_skew_s
    ]


def noisy(findings: Iterable[Finding]) -> list[str]:
    """Returns which of the findings chance can explain: measured again before they count."""
    return sorted({finding.what for finding in findings if finding.what in NOISY})
