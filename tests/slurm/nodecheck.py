"""Pre-flight on a real Slurm: sound starts, and nodes made slow, full or wrong.

    python -m tests.slurm.nodecheck 20 3     # 20 sound starts, every fault on every node; prints counts
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import compose
from configs.facts import Shape
from configs.runfolder import read_json
from configs.schema import RunConfig
from configs.site import Site
from launch.records import JobStart, read_starts
from launch.slurm import make_launch, render
from tests.slurm.cluster import NODES, Cluster
from tests.slurm.job_view import expand

# The pre-flight itself, without the start of Python, which a busy machine draws out.
WITHIN_S = 60.0
PATIENCE_S = 400.0
LIBRARY = "safetensors"
# Training is stood in for by a line; all else is the command itself.
AISC = """#!/bin/sh
[ "$1" = train ] && exec echo "trained on $(hostname)"
exec "{python}" -m cli.main "$@"
"""


@dataclass(frozen=True, slots=True)
class Lab:
    """A run folder, and what its jobs need; `local` is each node's own folder."""

    cluster: Cluster
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def local(self) -> Path:
        return self.folder / "local"

    def launch(self, nodes: str) -> int:
        """Submits a job of `nodes` nodes with the script of aisc launch."""
        return self.cluster.submit(self.run / "launch.sbatch", f"--nodes={nodes}", cwd=self.folder)

    def starts(self, job: int) -> list[JobStart]:
        return [start for start in read_starts(self.run) if start.job_id == job]

    def verdict(self, job: int, restart: int = 0) -> dict[str, Any]:
        """Returns what the pre-flight of one start has left."""
        found = read_json(self.run / "jobs" / f"{job}.{restart}.check.json")
        assert found is not None, f"job {job}.{restart}: no verdict\n{self.cluster.job(job).output}"
        return found


def make_lab(cluster: Cluster, folder: Path) -> Lab:
    """Returns a lab in `folder`, which is private to the caller."""
    lab = Lab(cluster, folder)
    lab.local.mkdir()
    (lab.run / "jobs").mkdir(parents=True)
    site, aisc = folder / "site.yaml", folder / "aisc"
    site.write_text(f"storage: {{node_local: {lab.local}}}\n")
    aisc.write_text(AISC.format(python=sys.executable))
    aisc.chmod(0o755)
    config = RunConfig()
    config.cluster.name, config.cluster.site, config.cluster.time = "slurm", str(site), "10 min"
    config.engine.backend = "gloo"
    (lab.run / "launch.yaml").write_text(compose.freeze(config))
    shape = Shape(nodes=3, gpus_per_node=0, ranks_per_node=1, cpus_per_rank=1)
    (lab.run / "launch.sbatch").write_text(render(make_launch(config, Site(), shape, lab.run, (str(aisc),))))
    return lab


@contextmanager
def fault(lab: Lab, kind: str, node: str) -> Iterator[None]:
    """Makes `node` slow, full or wrong."""
    cluster = lab.cluster
    mounts = []
    if kind == "slow":
        cluster.set_bandwidth(node, "8mbit")
    elif kind == "full":
        cluster.inside(node, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(lab.local))
        mounts.append(str(lab.local))
    else:
        there = Path(str(importlib.metadata.distribution(LIBRARY).locate_file(""))).resolve()
        there = next(there.glob(f"{LIBRARY}-*.dist-info")) / "METADATA"
        other = lab.folder / "METADATA"
        version = importlib.metadata.version(LIBRARY)
        other.write_text(there.read_text().replace(f"\nVersion: {version}\n", "\nVersion: 0.1.2\n"))
        cluster.inside(node, "mount", "--bind", str(other), str(there))
        mounts.append(str(there))
    try:
        yield
    finally:
        cluster.set_bandwidth(node, None)
        for mount in mounts:
            cluster.inside(node, "umount", mount)


def sound_start(lab: Lab) -> dict[str, Any]:
    """Starts a job on three sound nodes; returns the verdict, which is that they are.

    Raises:
        AssertionError: a false alarm.
    """
    job = lab.launch("3")
    lab.cluster.wait_for_job(job, timeout_s=PATIENCE_S)
    verdict = lab.verdict(job)
    assert verdict["code"] == 0 and verdict["findings"] == [], verdict["findings"]
    assert [start.verdict for start in lab.starts(job)] == ["finished"]
    return verdict


def bad_node(lab: Lab, kind: str, node: str) -> dict[str, Any]:
    """Starts a job of two nodes, one of them bad: it is named in time, and the next start avoids it.

    Returns counts. Of a slow link between two the second node is avoided first; see `slow_among_three`.
    """
    with fault(lab, kind, node):
        job = lab.launch("2")
        done = lab.cluster.wait_for_job(job, restarts=1, timeout_s=PATIENCE_S)
    first, second = lab.starts(job)
    verdict = lab.verdict(job)
    assert first.nodes == ["node1", "node2"]
    assert verdict["avoid"] == [node], verdict
    assert node in verdict["cause"] and verdict["suspects"] == (["node1", "node2"] if kind == "slow" else []), verdict
    assert verdict["seconds"] < WITHIN_S, verdict["seconds"]
    assert (first.verdict, first.excluded, first.cause) == ("excluded", [node], verdict["cause"])
    assert expand(done.fields["ExcNodeList"]) == [node]
    assert second.verdict == "finished" and second.nodes == [name for name in NODES if name != node]
    assert lab.verdict(job, 1)["code"] == 0
    assert "trained on" in done.output
    return {"cause": verdict["cause"], "seconds": verdict["seconds"], "from the job's begin": round(verdict["time"] - first.began, 1)}


def slow_among_three(lab: Lab, node: str) -> dict[str, Any]:
    """Starts a job of all three nodes, one of them slow: it is named; as two are too few, the job ends and says so."""
    with fault(lab, "slow", node):
        job = lab.launch("3")
        lab.cluster.wait_for_job(job, "FAILED", timeout_s=PATIENCE_S)
    verdict, (start,) = lab.verdict(job), lab.starts(job)
    assert (verdict["code"], verdict["avoid"], verdict["suspects"]) == (76, [node], []), verdict
    assert verdict["cause"].startswith(node) and verdict["seconds"] < WITHIN_S, verdict
    assert start.verdict == "stopped", start
    assert start.cause == f"{verdict['cause']}; not requeued: without {node} partition main has 2 nodes, the job needs 3"
    return {"cause": verdict["cause"], "seconds": verdict["seconds"], "from the job's begin": round(verdict["time"] - start.began, 1)}


def one_of_two(lab: Lab, node: str = "node1") -> dict[str, Any]:
    """A slow first node of a job of two: which of the two it is shows in the second start, the third is without it."""
    with fault(lab, "slow", node):
        job = lab.launch("2")
        lab.cluster.wait_for_job(job, restarts=2, timeout_s=2 * PATIENCE_S)
    starts = lab.starts(job)
    assert [start.nodes for start in starts] == [["node1", "node2"], ["node1", "node3"], ["node2", "node3"]], starts
    assert [start.excluded for start in starts] == [["node2"], ["node1"], []]
    assert lab.verdict(job, 1)["again"] == ["node2"]
    return {"causes": [start.cause for start in starts[:2]]}


def main(sound: int, nodes: int) -> None:
    """Counts sound starts without a false alarm, and bad nodes that were named and avoided."""
    folder = Path(tempfile.mkdtemp(prefix="aisc-slurm-", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        work = folder / "work"
        work.mkdir()
        lab = make_lab(cluster, work)
        took = [sound_start(lab)["seconds"] for _ in range(sound)]
        counts: dict[str, Any] = {"sound starts": sound, "false alarms": 0, "longest of them, s": max(took)}
        for kind, places in {"slow": NODES[:nodes], "full": NODES[:2], "wrong": NODES[:2]}.items():
            found = []
            for node in places:
                cluster.reset()
                found.append(slow_among_three(lab, node) if kind == "slow" else bad_node(lab, kind, node))
            counts[kind] = {"named and avoided": len(found), "longest, s": max(one["seconds"] for one in found)}
            counts[kind]["longest from the job's begin, s"] = max(one["from the job's begin"] for one in found)
            counts[kind]["for example"] = found[-1]["cause"]
        cluster.reset()
        counts["one of two"] = one_of_two(lab)
        print(json.dumps(counts))
    finally:
        cluster.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    began = time.monotonic()
    main(int(sys.argv[1]), int(sys.argv[2]))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
