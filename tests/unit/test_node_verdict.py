"""The verdict of the pre-flight from figures alone: chance never alarms, one bad node is the one that is named."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.site import Bounds
from train.node_figures import job_figures
from train.node_links import rounds
from train.node_probes import read_card
from train.node_table import table
from train.node_verdict import Known, Node, Rate, judge, noisy, spell_rate
from train.nodecheck import tasks_per_node

GPUS = {"kind": "GPU", "count": 8, "names": ["NVIDIA H800"] * 8}
VERSIONS = {"python": "3.11.2", "torch": "2.13.0", "numpy": "2.3.1"}
BAD: dict[str, Callable[[Node], dict[str, Any]]] = {
    "matrix": lambda node: {"matrix": Rate(160.0, 1.05)},
    "send": lambda node: {"send": Rate(3.0, 1.1)},
    "receive": lambda node: {"receive": Rate(3.0, 1.1)},
    "memory": lambda node: {"free_fraction": 0.3},
    "full": lambda node: {"disks": {"local": {"path": "/local", "free_gb": 0.0, "latency_ms": 1.0, "error": "no space", "full": True}}},
    "nearly full": lambda node: {"disks": {"local": {"path": "/local", "free_gb": 0.4, "latency_ms": 1.0}}},
    "slow disk": lambda node: {"disks": {"local": {"path": "/local", "free_gb": 900.0, "latency_ms": 4000.0}}},
    "no folder": lambda node: {"disks": {"local": {"path": "/local", "error": "No such file or directory", "full": False}}},
    "versions": lambda node: {"versions": {**VERSIONS, "numpy": "2.2.0"}},
    "fewer GPUs": lambda node: {"devices": {**GPUS, "count": 7, "names": ["NVIDIA H800"] * 7}},
    "other GPU": lambda node: {"devices": {**GPUS, "names": ["NVIDIA A100"] * 8}},
    "clock": lambda node: {"clock_s": 90.0},
    "ecc": lambda node: {"cards": [{"index": 3, "uncorrected_errors": 2}]},
    "heat": lambda node: {"cards": [{"index": 3, "slowed_by_hardware": True, "clock_mhz": 345}]},
    "other run folder": lambda node: {"signature": "beef"},
    "problem": lambda node: {"problem": "the run folder cannot be read"},
}


def sound(name: str, chance: random.Random, spread: float = 1.25) -> Node:
    """Returns a node whose figures differ from the others' by chance."""

    def about(value: float) -> Rate:
        return Rate(value * chance.uniform(0.85, 1.15), chance.uniform(1.0, spread))

    return Node(
        name=name,
        devices=GPUS,
        matrix=about(400.0),
        free_fraction=chance.uniform(0.97, 0.99),
        disks={"local": {"path": "/local", "free_gb": chance.uniform(300, 900), "latency_ms": chance.uniform(0.2, 30)}},
        versions=VERSIONS,
        cards=[{"index": 0, "uncorrected_errors": 0, "slowed_by_hardware": False}],
        send=about(45.0),
        receive=about(45.0),
        clock_s=chance.uniform(-0.5, 0.5),
        signature="cafe",
    )


def job(size: int, seed: int) -> list[Node]:
    """Returns `size` sound nodes."""
    chance = random.Random(seed)
    return [sound(f"node{index:02}", chance) for index in range(size)]


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_sound_nodes_never_alarm(size: int, seed: int) -> None:
    verdict = judge(job(size, seed), None, Bounds(), Known(gpu="H800", gpus_per_node=8))
    assert (verdict.code, verdict.findings) == (0, [])


@given(st.integers(3, 6), st.integers(0, 10**6))
def test_a_noisy_machine_never_alarms(size: int, seed: int) -> None:
    """Best rates that differ threefold, from measurements that differ as much between repeats."""
    chance = random.Random(seed)
    nodes = [
        dataclasses.replace(
            node, **{key: Rate(chance.uniform(0.4, 1.2), chance.uniform(2.0, 6.0)) for key in ("matrix", "send", "receive")}
        )
        for node in job(size, seed)
    ]
    assert judge(nodes, None, Bounds(), Known()).code == 0


@settings(max_examples=40)
@given(st.sampled_from(sorted(BAD)), st.integers(3, 20), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_the_bad_node_is_the_one_that_is_named(kind: str, size: int, seed: int, chance: random.Random) -> None:
    nodes = job(size, seed)
    bad = chance.randrange(size)
    nodes[bad] = dataclasses.replace(nodes[bad], **BAD[kind](nodes[bad]))
    verdict = judge(nodes, None, Bounds(), Known(gpu="H800", gpus_per_node=8))
    assert (verdict.code, verdict.avoid) == (76, [nodes[bad].name])
    assert verdict.cause.startswith(nodes[bad].name) and "\n" not in verdict.cause
    mixed = nodes[:]
    chance.shuffle(mixed)
    again = judge(mixed, None, Bounds(), Known(gpu="H800", gpus_per_node=8))
    assert (again.code, again.avoid, again.cause) == (verdict.code, verdict.avoid, verdict.cause)


@pytest.mark.parametrize("kind", ["matrix", "memory", "full", "slow disk", "fewer GPUs", "other GPU", "ecc"])
def test_of_two_nodes_the_bad_one_is_named(kind: str) -> None:
    nodes = job(2, 1)
    nodes[0] = dataclasses.replace(nodes[0], **BAD[kind](nodes[0]))
    if kind == "matrix":
        nodes[0] = dataclasses.replace(nodes[0], matrix=Rate(100.0, 1.05))
    verdict = judge(nodes, None, Bounds(), Known(gpu="H800", gpus_per_node=8))
    assert (verdict.code, verdict.avoid, verdict.suspects) == (76, ["node00"], [])


@pytest.mark.parametrize("key", ["send", "receive"])
def test_a_slow_link_of_two_is_settled_by_the_next_start(key: str) -> None:
    nodes = [dataclasses.replace(node, **{key: Rate(0.001)}) for node in job(2, 1)]
    first = judge(nodes, None, Bounds(), Known())
    assert (first.code, first.avoid, first.suspects) == (76, ["node01"], ["node00", "node01"])
    assert first.cause.startswith("node00 or node01: 1 MB/s from ")
    other = [nodes[0], dataclasses.replace(nodes[1], name="node07")]
    second = judge(other, None, Bounds(), Known(suspects=[("node00", "node01")]))
    assert (second.code, second.avoid, second.again, second.suspects) == (76, ["node00"], ["node01"], [])


def test_versions_of_two_nodes_are_settled_by_an_earlier_start() -> None:
    nodes = job(2, 1)
    nodes[0] = dataclasses.replace(nodes[0], **BAD["versions"](nodes[0]))
    unknown = judge(nodes, None, Bounds(), Known())
    assert (unknown.code, unknown.suspects) == (76, ["node00", "node01"])
    known = judge(nodes, None, Bounds(), Known(versions=VERSIONS))
    assert (known.code, known.avoid) == (76, ["node00"])
    assert known.cause == "node00 has numpy 2.2.0; node01, an earlier start: numpy 2.3.1"


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(matmul_tflops=500), "matrix product"),
        (Bounds(pairwise_gb_per_s=100), "sends"),
        (Bounds(free_memory_fraction=0.995), "of memory is free, bound"),
        (Bounds(disk_free_gb=2000), "bounds.disk_free_gb=2000"),
        (Bounds(all_reduce_gb_per_s=50), "all-reduce 20 GB/s"),
    ],
)
def test_what_all_nodes_miss_is_no_node_s_fault(bounds: Bounds, words: str) -> None:
    verdict = judge(job(4, 1), 20.0, bounds, Known())
    assert (verdict.code, verdict.avoid) == (2, [])
    assert words in verdict.cause


def test_a_node_below_a_bound_is_named_even_alone() -> None:
    verdict = judge(job(1, 1), None, Bounds(matmul_tflops=500), Known())
    assert (verdict.code, verdict.avoid) == (76, ["node00"])


def test_nodes_that_do_not_answer_are_named() -> None:
    nodes = job(3, 1)
    silent = {"node01": "did not come within 30 s (rank 2)"}
    verdict = judge(nodes, None, Bounds(), Known(missing=silent))
    assert (verdict.code, verdict.avoid, verdict.cause) == (76, ["node01"], "node01 did not come within 30 s (rank 2)")
    all_others = dict.fromkeys(("node01", "node02"), "did not come")
    assert judge(nodes, None, Bounds(), Known(missing=all_others)).avoid == ["node00"]


def test_links_to_a_silent_node_say_nothing_of_the_others() -> None:
    link = {"median": 0.0, "error": "gone"}
    reports = [
        {"rank": rank, "node": f"n{rank}", "links": [{"sender": rank, "receiver": 2, "gb_per_s": 0.0, **link}] if rank < 2 else []}
        for rank in range(3)
    ]
    figures = job_figures([reports], {2: "did not report"})
    assert figures.missing == {"n2": "did not report"}
    assert [node.send for node in figures.nodes] == [None, None, None]


def test_the_best_of_the_laps_counts() -> None:
    laps = [
        [{"rank": 0, "node": "a", "matrix_tflops": rate, "matrix_median": rate / 2}, {"rank": 1, "node": "a", "matrix_tflops": 9.0, "matrix_median": 9.0}]
        for rate in (4.0, 8.0, 6.0)
    ]
    (node,) = job_figures(laps, {}).nodes
    assert node.matrix == Rate(8.0, 8.0 / 3.0)


@pytest.mark.parametrize("nodes", range(2, 12))
def test_in_a_round_each_node_is_met_once(nodes: int) -> None:
    plan = rounds(nodes)
    pairs = [pair for each in plan for pair in each]
    assert len(set(pairs)) == len(pairs) and all(one < two < nodes for one, two in pairs)
    assert all(len({name for pair in each for name in pair}) == 2 * len(each) for each in plan)
    partners = {node: sum(node in pair for pair in pairs) for node in range(nodes)}
    assert min(partners.values()) >= min(2, nodes - 1)


def test_nvidia_smi_is_read_with_what_it_does_not_know() -> None:
    assert read_card("3, 550.54.15, 1980, 1980, 0, Not Active\n") == {
        "index": 3,
        "clock_mhz": 1980,
        "max_clock_mhz": 1980,
        "uncorrected_errors": 0,
        "driver": "550.54.15",
        "slowed_by_hardware": False,
    }
    assert read_card("0, [N/A], 345, 1980, [N/A], Active") == {
        "index": 0,
        "clock_mhz": 345,
        "max_clock_mhz": 1980,
        "slowed_by_hardware": True,
    }
    assert read_card("") == {}


def test_the_table_fits_the_screen() -> None:
    nodes = job(40, 1)
    nodes[30] = dataclasses.replace(nodes[30], send=Rate(1.234e-5), name="a-very-long-host-name")
    reports = [[{"rank": rank, "node": node.name} for rank, node in enumerate(nodes)]]
    figures = dataclasses.replace(job_figures(reports, {}), nodes=nodes)
    verdict = judge(nodes, 20.0, Bounds(), Known())
    lines = table(figures, verdict, seconds=3.2, ranks=320).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) < 22
    assert lines[0] == "pre-flight  40 nodes, 320 ranks, 3.2 s"
    assert lines[2].startswith("a-very-long-") and "12.3 kB/s" in lines[2]


def test_words() -> None:
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1] and tasks_per_node("") == []
    assert [spell_rate(rate) for rate in (45.0, 0.012, 9.5e-6, 1e-8)] == ["45 GB/s", "12 MB/s", "9.5 kB/s", "10 B/s"]
    slow = dataclasses.replace(job(3, 1)[0], matrix=Rate(1.0))
    assert noisy(judge([slow, *job(3, 1)[1:]], None, Bounds(), Known()).findings) == ["matrix"]
