"""`aisc doctor` beside a real Slurm: what it asks, and what compute nodes have that this machine has not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import ROOT, Cluster

Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(cluster: Cluster) -> Doctor:
    """Runs the verb; returns its exit code and what it said."""

    def run(*arguments: str) -> tuple[int, str]:
        command = [str(Path(sys.executable).with_name("aisc")), "doctor", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=cluster.env, capture_output=True, text=True, timeout=240, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_nodes_are_compared_with_this_machine(cluster: Cluster, doctor: Doctor, tmp_path: Path) -> None:
    asked = ("--nodes", "2", "cluster.partition=main", "cluster.gpus_per_node=2", f"run.dir={tmp_path}")
    code, said = doctor(*asked)
    assert code == 0 and "ready: nothing differs that must not" in said, said
    assert "may  gpus" in said and "node1" in said, said
    assert not list(tmp_path.iterdir()), "probes are removed"
    # What a node that has not mounted the shared storage sees: an empty folder of that name.
    cluster.inside("node1", "mount", "-t", "tmpfs", "none", str(tmp_path))
    try:
        code, said = doctor(*asked)
    finally:
        cluster.inside("node1", "umount", str(tmp_path))
    assert code == 1 and f"{tmp_path} another folder of that name   node1" in said, said
    assert "run.dir=FOLDER, or storage.runs in the site file" in said


def test_nodes_without_the_environment_are_told_from_silent_ones(doctor: Doctor, tmp_path: Path) -> None:
    code, said = doctor("--nodes", "1", "cluster.partition=cpu", f"run.dir={tmp_path}", "cluster.setup=['echo no such module >&2; exit 1']")
    assert code == 1 and "no such module" in said and "aisc does not start there" in said, said


@pytest.mark.parametrize(("setting", "sentence"), [("cluster.partition=nope", "invalid partition specified: nope"), ("cluster.account=nope", "Invalid account")])
def test_a_wrong_place_is_named(doctor: Doctor, setting: str, sentence: str, tmp_path: Path) -> None:
    code, said = doctor("--nodes", "1", setting, f"run.dir={tmp_path}")
    assert code == 2 and sentence in said and "then cluster." in said, said


def test_slurm_is_asked_on_this_machine(doctor: Doctor) -> None:
    code, said = doctor("cluster.partition=main", "cluster.account=tests")
    assert code == 0, said
    for line in ("Slurmctld(primary)", "main (cluster.partition): up, 3 nodes", "account      tests; yours:", "sbatch would take it"):
        assert line in said
    code, said = doctor("cluster.partition=nope", "cluster.account=nope")
    assert code == 1 and "nope (cluster.partition): no such partition" in said and "cluster.account=NAME, one of yours" in said
