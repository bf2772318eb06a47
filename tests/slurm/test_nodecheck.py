"""The pre-flight: a slow, a full, a wrong node is named within a minute and avoided; sound nodes are left alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.nodecheck import FAULTS, Lab, bad_node, make_lab, sound_start


@pytest.fixture
def lab(cluster: Cluster) -> Iterator[Lab]:
    """A run whose jobs do all but train."""
    with tempfile.TemporaryDirectory(prefix="nodecheck-") as folder:
        yield make_lab(cluster, Path(folder))


def test_sound_nodes_are_left_alone(lab: Lab) -> None:
    for _ in range(3):
        sound_start(lab)


@pytest.mark.parametrize(("kind", "node"), list(zip(FAULTS, ("node2", "node3", "node1"), strict=True)))
def test_a_bad_node_is_named_and_avoided(lab: Lab, kind: str, node: str) -> None:
    bad_node(lab, kind, node)
