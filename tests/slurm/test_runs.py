"""`aisc runs` on a run in the queue: listed while it runs, stopped, taken out of the queue, resumed, followed to its end."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from configs.runfolder import read_json
from tests.slurm.cluster import Cluster
from tests.slurm.processes import wait_until
from tests.slurm.survival import Bench, Run

# squeue itself tries for some nine seconds; we end it after twelve.
WITHOUT_CONTROLLER_S = 60.0


class Desk:
    """A person's terminal, on one run of one node."""

    def __init__(self, cluster: Cluster, folder: Path, *, step_s: float = 0.5) -> None:
        self.cluster = cluster
        bench = Bench(cluster, folder)
        self.run: Run = bench.launch("desk", 1, 1, pace=f"step={step_s}")

    def runs(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """Returns what `aisc runs` prints."""
        words = (sys.executable, "-m", "cli.main", "runs", *arguments, f"run.dir={self.run.parent}")
        return self.cluster.call(*words, cwd=self.run.parent, timeout_s=timeout_s)

    @property
    def name(self) -> str:
        return self.run.folder.name


def test_a_run_is_listed_stopped_taken_back_resumed_and_followed(cluster: Cluster, tmp_path: Path) -> None:
    desk = Desk(cluster, tmp_path)
    name, job = desk.name, desk.run.job_id
    desk.run.wait_for("step", past_step=2)
    assert re.search(rf"{name}  running {job} node\d  +\d+/24 ", listed := desk.runs()), listed
    assert f"runs (job {job} on node" in desk.runs("show", str(job))

    # While it trains: it saves first, and Slurm does not bring it back.
    assert f"asked attempt 1 (job {job}) to save and stop after its step; it is not requeued" in desk.runs("stop", name)
    cluster.wait_for_job(job, "FAILED")
    assert desk.run.starts[-1].verdict == "stopped"
    assert desk.runs("show", name).startswith(f"{name}   stopped by you, saved step ")
    with pytest.raises(RuntimeError, match="nothing to stop, it is stopped: asked to stop"):
        desk.runs("stop", name)

    # While it waits: out of the queue.
    cluster.call("scontrol", "update", f"NodeName={','.join(cluster.layout.nodes)}", "State=DRAIN", "Reason=test")
    assert "it goes on from its newest checkpoint" in desk.runs("resume", name)
    waiting = desk.run.job_id
    assert waiting != job and re.search(rf"{name}  waits {waiting} ", listed := desk.runs()), listed
    with pytest.raises(RuntimeError, match=f"job {waiting} .train. of this run is pending"):
        desk.runs("resume", name)
    assert f"job {waiting} (train) was waiting: cancelled" in desk.runs("stop", name)
    assert desk.runs("show", name).startswith(f"{name}   stopped by you, saved step ")
    with pytest.raises(RuntimeError, match="it has not failed .stopped.; it goes on with: aisc runs resume"):
        desk.runs("retry", name)
    for node in cluster.layout.nodes:
        cluster.call("scontrol", "update", f"NodeName={node}", "State=RESUME")

    desk.runs("resume", name)
    followed = desk.runs("follow", name, timeout_s=480.0)
    assert re.search(rf"{name}   done, eval_loss \d\.\d+, 24 steps\.", followed), followed
    assert f"runs (job {desk.run.job_id} on node" in followed and "24/24" in followed
    assert read_json(desk.run.folder.result_path) is not None


def test_a_controller_that_is_away_costs_seconds_not_the_screen(cluster: Cluster, tmp_path: Path) -> None:
    desk = Desk(cluster, tmp_path, step_s=4.0)  # longer than what squeue waits for, twice
    attempt = desk.run.wait_for("step")
    assert attempt is not None
    cluster.kill_ctld()
    began = time.monotonic()
    listed = desk.runs()
    assert time.monotonic() - began < WITHOUT_CONTROLLER_S
    assert re.search(rf"{desk.name}  running  +\d+/24 ", listed), listed
    assert "from files only: squeue: the Slurm controller" in listed
    # The stop file needs no controller.
    assert "asked attempt 1 to save and stop" in desk.runs("stop", desk.name)
    wait_until(attempt.exit_path.exists, 60.0, desk.run.parent.__str__)
    assert (read_json(attempt.exit_path) or {})["kind"] == "user"
