"""The cluster of a session of tests, whole and idle before each test; without one its tests fail, they are not skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, temporary


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A started cluster; fixtures that run several jobs at once take it, and leave it as they found it."""
    with temporary() as cluster:
        yield cluster


@pytest.fixture
def cluster(slurm: Cluster) -> Iterator[Cluster]:
    """The session's cluster, for one test, which may break it: it is mended afterwards."""
    slurm.wait_idle()
    yield slurm
    slurm.reset()
