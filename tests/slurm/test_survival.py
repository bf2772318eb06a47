"""Whole runs through a real queue: to the end, by hand, pushed out, requeued, killed, moved to other numbers of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.runfolder import read_json
from tests.kills.lab import only_run
from tests.slurm.cluster import Cluster
from tests.slurm.survival import (
    DROPOUT,
    PATIENCE_S,
    SAVE_EVERY,
    Bench,
    Run,
    facts_of,
    steps_redone,
    worst_difference,
)


@pytest.fixture(scope="module")
def bench(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(slurm, tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def alone(bench: Bench) -> dict[str, Any]:
    """`aisc train` in one process."""
    process = bench.train("alone")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    return facts_of(only_run(bench.folder / "runs" / "alone"))


@pytest.fixture(scope="module")
def finished(bench: Bench, alone: dict[str, Any]) -> tuple[Run, Run]:
    """Two undisturbed runs at a time: one as launched, one whose job was cancelled and whose script was submitted by hand."""
    launched = bench.launch("launched", 2, 2)
    by_hand = bench.launch("by-hand", 2, 1, DROPOUT, "cluster.check_nodes=false")
    script = by_hand.folder.path / "launch.sbatch"
    bench.cluster.call("scancel", str(by_hand.job_id))
    job = bench.cluster.submit(script, cwd=Path("/"))
    assert launched.finish() and bench.cluster.wait_for_job(job, timeout_s=PATIENCE_S)
    return launched, by_hand


def test_two_nodes_of_two_ranks_end_as_one_process(finished: tuple[Run, Run], alone: dict[str, Any]) -> None:
    launched = finished[0]
    facts = facts_of(launched.folder)
    assert facts["heads"] == alone["heads"]
    assert worst_difference(facts, alone) <= 1e-5
    (start,) = launched.starts
    notes = [read_json(launched.folder.attempts()[0].path / "ranks" / f"rank-{rank:05d}.json") for rank in range(4)]
    assert [note["host"] for note in notes if note] == [start.nodes[0]] * 2 + [start.nodes[1]] * 2
    assert launched.folder.result_path.exists() and (launched.folder.path / "model").is_dir()
    (row,) = launched.cluster.sacct(launched.job_id, "State", "AllocTRES", "ElapsedRaw")
    assert "gres/gpu=4" in row["AllocTRES"]


def test_the_script_by_hand_does_the_same(finished: tuple[Run, Run], alone: dict[str, Any]) -> None:
    assert facts_of(finished[1].folder)["heads"] == alone["heads"]


def test_requeued_preempted_and_a_node_killed(cluster: Cluster, bench: Bench, finished: tuple[Run, Run]) -> None:
    run = bench.launch("disturbed", 2, 1, DROPOUT, pace="step=0.2 evaluation=0.4 save=0.3")
    run.wait_for("evaluation", past_step=1)
    run.requeue()
    run.wait_for("step", restart=1, past_step=10)
    run.preempt()
    run.wait_for("save", restart=2, past_step=15)
    cluster.kill_node(cluster.job(run.job_id).nodes[-1])
    run.finish()
    assert facts_of(run.folder) == facts_of(finished[1].folder)
    requeued, preempted, killed = steps_redone(run.folder)
    assert max(requeued, preempted) <= 1 and killed <= SAVE_EVERY
    verdicts = [(start.restart, start.verdict) for start in run.starts]
    # After `scontrol requeue` the job has KillWait to write its own verdict down; a busy machine may take longer.
    assert verdicts[0] in [(0, "requeued"), (0, None)], run.starts
    assert verdicts[1:] == [(1, "requeued"), (2, None), (3, "finished")], run.starts
    states = [row["State"] for row in cluster.sacct(run.job_id, "State")]
    # A pushed-out job that requeues itself within the grace time is REQUEUED in the accounts, else PREEMPTED.
    assert states[0] == "REQUEUED" and states[1] in ("REQUEUED", "PREEMPTED") and states[2] == "NODE_FAIL", states


def test_three_segments_on_two_three_and_one_node(cluster: Cluster, bench: Bench, alone: dict[str, Any]) -> None:
    pace = "step=0.2"
    run = bench.launch("moving", 2, 1, pace=pace)
    for nodes, past_step in ((3, 4), (1, 11)):
        run.wait_for("step", past_step=past_step)
        run.stop()
        run = bench.launch("moving", nodes, 1, pace=pace)
    run.finish()
    facts = facts_of(run.folder)
    assert facts["heads"] == alone["heads"]
    assert worst_difference(facts, alone) <= 1e-5
    assert [len(start.nodes) for start in run.starts] == [2, 3, 1]
    assert steps_redone(run.folder) == [0, 0]
