"""The test cluster itself: it is a Slurm of three nodes, breaks on demand; conftest.py sees to it that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm import packages
from tests.slurm.cluster import Cluster
from tests.slurm.job_view import expand

SCRIPT = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=2 --gpus-per-node=2 --output={folder}/%j.out
srun --label sh -c 'echo $(hostname) $SLURM_PROCID of $SLURM_NTASKS gpus $CUDA_VISIBLE_DEVICES to $(getent hosts node1)'
"""


def test_tasks_run_on_two_nodes_with_their_own_names_addresses_and_gpus(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(SCRIPT.format(folder=tmp_path))
    job = cluster.wait_for_job(cluster.submit(script, cwd=tmp_path))
    lines = sorted(line.split(": ")[1] for line in job.output.splitlines())
    address = f"{cluster.layout.address('node1')}      node1".split()
    hosts = [line.split() for line in lines]
    assert [words[:6] for words in hosts] == [
        [node, str(rank), "of", "4", "gpus", "0,1"] for rank, node in enumerate(["node1", "node1", "node2", "node2"])
    ]
    assert all(words[-2:] == address for words in hosts)
    (row,) = cluster.sacct(int(job.fields["JobId"]), "State", "AllocTRES")
    assert row["State"] == "COMPLETED" and "gres/gpu=4" in row["AllocTRES"]


def test_a_request_that_no_node_can_meet_is_refused_at_once(cluster: Cluster) -> None:
    with pytest.raises(RuntimeError, match="Requested node configuration is not available"):
        cluster.call("sbatch", "--gpus-per-node=5", "--wrap=true")


def test_hosts_are_expanded() -> None:
    assert expand("node[1-2,4],gpu7,b[08-09]") == ["node1", "node2", "node4", "gpu7", "b08", "b09"]


def test_without_root_it_says_what_is_not_covered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("CI", "1")
    assert packages.main() == 1
    assert "not covered here" in capsys.readouterr().err
    monkeypatch.delenv("CI")
    assert packages.main() == 3
