"""The cluster of a session of tests, whole and idle before each test; without one its tests fail, they are not skipped."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, stop_abandoned


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A started cluster; fixtures that run several jobs at once take it, and leave it as they found it."""
    stop_abandoned(Path("/tmp"))
    state = Path(tempfile.mkdtemp(prefix="aisc-slurm-", dir="/tmp"))
    cluster = Cluster(state)
    try:
        cluster.start(owner=os.getpid())
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(state)


@pytest.fixture
def cluster(slurm: Cluster) -> Iterator[Cluster]:
    """The session's cluster, for one test, which may break it: it is mended afterwards."""
    slurm.wait_idle()
    yield slurm
    slurm.reset()
