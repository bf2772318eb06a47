"""The pre-flight: a slow, a full, a wrong node is named within a minute and avoided; sound nodes are left alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.nodecheck import Lab, bad_node, make_lab, slow_among_three, sound_start


@pytest.fixture(scope="module")
def lab(slurm: Cluster) -> Iterator[Lab]:
    """A run whose jobs do all but train, and whose first start was sound."""
    with tempfile.TemporaryDirectory(prefix="nodecheck-") as folder:
        lab = make_lab(slurm, Path(folder))
        sound_start(lab)
        yield lab


def test_sound_nodes_are_left_alone(cluster: Cluster, lab: Lab) -> None:
    for _ in range(2):
        sound_start(lab)


def test_a_slow_node_is_named(cluster: Cluster, lab: Lab) -> None:
    slow_among_three(lab, "node1")


@pytest.mark.parametrize(("kind", "node"), [("slow", "node2"), ("full", "node2"), ("wrong", "node1")])
def test_a_bad_node_is_named_and_avoided(cluster: Cluster, lab: Lab, kind: str, node: str) -> None:
    bad_node(lab, kind, node)
