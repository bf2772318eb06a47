"""The shipped chains, reduced, here and through a real Slurm: to a released folder both ways, on the same numbers.

    python -m tests.chains.both_ways hkgai|oncology      prints the counts
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.runfolder import read_json
from launch.chain import ChainFolder, all_chains
from launch.chain_states import JOB_STAGES, current_states
from launch.records import read_jobs
from tests.chains.lab import aisc, aisc_command
from tests.chains.reduced import hkgai, oncology_chain
from tests.slurm.cluster import ROOT, Cluster, temporary
from tests.slurm.processes import wait_until

CHAINS: dict[str, Callable[[Path], list[str]]] = {"hkgai": hkgai, "oncology": oncology_chain}
# Both ways alike, so that the numbers are.
ENGINE = ("engine.name=ddp", "engine.backend=gloo")
CLUSTER = (
    "cluster.name=slurm",
    "cluster.gpus_per_node=0",
    "cluster.partition=main",
    "cluster.cpu_partition=cpu",
    "cluster.check_nodes=false",
    "cluster.time=30 min",
)
LONGEST_S = 3600.0


def both_ways(name: str) -> dict[str, Any]:
    """Runs a chain here and through Slurm; returns the stages, the release's files and the seconds of each way.

    Raises:
        AssertionError: a stage is not done, nothing is released, or the ledgers of the two ways differ.
    """
    with tempfile.TemporaryDirectory(prefix="aisc-chain-") as text:
        folder = Path(text)
        words = [*CHAINS[name](folder), *ENGINE]
        began = time.monotonic()
        code, said = aisc("train", *words, f"run.dir={folder / 'here'}")
        assert code == 0, said
        here, seconds = only_chain(folder / "here"), time.monotonic() - began
        began = time.monotonic()
        with temporary() as slurm:
            queue = through_slurm(slurm, [*words, *CLUSTER, f"run.dir={folder / 'queue'}"], folder / "queue")
        assert heads(here) == heads(queue), f"{heads(here)} here, {heads(queue)} through the queue"
        return {
            "stages": [stage.name for stage in here.info().stages],
            "files released": {"here": count_released(here), "queue": count_released(queue)},
            "ledgers equal": len(heads(here)),
            "seconds": {"here": round(seconds), "queue": round(time.monotonic() - began)},
        }


def through_slurm(slurm: Cluster, words: list[str], runs: Path) -> ChainFolder:
    """Launches a chain, waits for its last job, and returns its folder."""
    done = subprocess.run(aisc_command("launch", *words), cwd=ROOT, env=slurm.env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    chain = only_chain(runs)
    stages = chain.info().stages
    jobs = [next(job for job in read_jobs(chain.path / one.run) if job.stage == JOB_STAGES[one.kind]) for one in stages]

    def outputs() -> str:
        return "\n".join(slurm.job(job.job_id).output[-2000:] for job in jobs)

    wait_until(lambda: slurm.job(jobs[-1].job_id).state in ("COMPLETED", "FAILED", "CANCELLED"), LONGEST_S, outputs)
    assert [one.state for one in current_states(chain)] == ["done"] * len(stages), outputs()
    return chain


def only_chain(runs: Path) -> ChainFolder:
    """Returns the one chain in `runs`."""
    (chain,) = all_chains(runs)
    return chain


def heads(chain: ChainFolder) -> dict[str, str]:
    """Returns the ledger's head of each training."""
    stages = [stage for stage in chain.info().stages if stage.kind == "train"]
    return {stage.name: str((read_json(chain.run_of(stage.name).result_path) or {})["ledger"]) for stage in stages}


def count_released(chain: ChainFolder) -> int:
    """Returns how many files the release has; there must be some."""
    count = len(chain.info().stages[-1].made)
    assert count, f"{chain.name}: nothing was released"
    return count


if __name__ == "__main__":
    print(json.dumps(both_ways(sys.argv[1])))
