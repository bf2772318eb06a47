"""`make soak`: the full counts, in shards of at most half an hour; a shard whose evidence still holds is not run again.

    python -m tests.soak [SHARD ...]     those named, or all that have no valid evidence
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.evidence import FOLDER, ROOT, changed_files, record
from tests.distributed.matrix import MODELS
from tests.distributed.reshard import BOUND, CHAINS

SAVING = (
    "configs/atomic.py",
    "configs/runfolder.py",
    "train/checkpoint_files.py",
    "train/checkpoint_reading.py",
    "train/shard_files.py",
    "train/shard_plan.py",
    "tests/kills/saver.py",
)
RUNNING = (
    *SAVING[:-1],
    "data_pipelines/collate.py",
    "data_pipelines/ledger.py",
    "data_pipelines/order.py",
    "train/checkpoint.py",
    "train/checkpointer.py",
    "train/engines/ddp.py",
    "train/loop.py",
    "train/scores.py",
    "train/shards.py",
    "train/state.py",
    "train/step.py",
    "tests/kills/lab.py",
    "tests/kills/whole_run.py",
)

FAULTS = (
    "configs/runfolder.py",
    "launch/local.py",
    "train/activity.py",
    "train/checkpoint_files.py",
    "train/checkpointer.py",
    "train/failures.py",
    "train/last_words.py",
    "train/loop.py",
    "train/rank_notes.py",
    "train/replicas.py",
    "train/run.py",
    "train/step.py",
    "train/step_guards.py",
    "train/watchdog.py",
    "tests/faults/faults.py",
    "tests/faults/planted.py",
)
PROVING = (
    "data_pipelines/collate.py",
    "data_pipelines/order.py",
    "data_pipelines/tokenize.py",
    "tests/prove/bugs.py",
    "train/adapters.py",
    "train/attention.py",
    "train/engines/ddp.py",
    "train/engines/deepspeed.py",
    "train/engines/fsdp2.py",
    "train/engines/local.py",
    "train/evaluate.py",
    "train/learner.py",
    "train/optimizer.py",
    "train/prove/cases.py",
    "train/prove/plain.py",
    "train/prove/ranks.py",
    "train/prove/reference.py",
    "train/prove/sample.py",
    "train/prove/verdict.py",
    "train/scores.py",
    "train/step.py",
)
SHIPPED = (
    "tests/prove/shipped.py",
    "train/prove/cases.py",
    "train/prove/plain.py",
    "train/prove/ranks.py",
    "train/prove/reference.py",
    "train/prove/sample.py",
    "train/prove/verdict.py",
)
ENGINES = (
    "data_pipelines/collate.py",
    "train/adapters.py",
    "train/attention.py",
    "train/engines/ddp.py",
    "train/engines/deepspeed.py",
    "train/engines/deepspeed_config.py",
    "train/engines/fsdp2.py",
    "train/engines/local.py",
    "train/optimizer.py",
    "train/prove/reference.py",
    "train/scores.py",
    "train/step.py",
    "train/weights.py",
    "tests/distributed/matrix.py",
)
RESHARDING = (
    *ENGINES[:-1],
    "train/checkpoint.py",
    "train/checkpoint_reading.py",
    "train/checkpointer.py",
    "train/engines/zero_state.py",
    "train/shards.py",
    "train/shard_plan.py",
    "tests/distributed/reshard.py",
)
QUEUE = (
    "cli/job.py",
    "cli/launch.py",
    "configs/runfolder.py",
    "launch/exclude.py",
    "launch/job.py",
    "launch/slurm.py",
    "launch/submit.py",
    "train/checkpointer.py",
    "train/deadline.py",
    "train/evaluate.py",
    "train/loop.py",
    "train/signals.py",
    "train/stopping.py",
    "tests/slurm/cluster.py",
    "tests/slurm/paced.py",
    "tests/slurm/scenarios.py",
    "tests/slurm/survival.py",
)
GOODPUT = (
    "launch/goodput.py",
    "launch/segments.py",
    "train/activity.py",
    "train/phases.py",
    "tests/slurm/planted.py",
    "tests/slurm/test_goodput.py",
)
NODECHECK = (
    "configs/site.py",
    "launch/exclude.py",
    "launch/job.py",
    "launch/slurm.py",
    "train/node_figures.py",
    "train/node_links.py",
    "train/node_probes.py",
    "train/node_verdict.py",
    "train/nodecheck.py",
    "tests/slurm/cluster.py",
    "tests/slurm/nodecheck.py",
)
ICD_PAIRS = (
    "data_pipelines/corpora/icd_pairs.py",
    "data_pipelines/formats/preference.py",
    "train/objectives/dpo.py",
    "train/objectives/pairs.py",
    "tests/runs/icd_preference.py",
)
CHAINED = (
    "cli/chain.py",
    "cli/chain_launch.py",
    "cli/chain_plan.py",
    "configs/chain.py",
    "configs/experiment/hkgai_chain.yaml",
    "configs/experiment/oncology_chain.yaml",
    "launch/chain.py",
    "launch/chain_alive.py",
    "launch/chain_local.py",
    "launch/chain_queue.py",
    "tests/chains/both_ways.py",
    "tests/chains/reduced.py",
)


@dataclass(frozen=True, slots=True)
class Shard:
    """One piece of evidence: the files it speaks of, how it is made, which seed."""

    covers: tuple[str, ...]
    make: Callable[[], dict[str, Any]]
    seed: int


def save_protocol() -> dict[str, Any]:
    """A fault at every system call of a save, four kinds; 200 SIGKILLs at random moments."""
    counts = {fault: python("tests.kills.saver", "faults", fault) for fault in ("kill", "torn", "ENOSPC", "EIO")}
    return {**counts, "SIGKILL": python("tests.kills.saver", "kills", "200", "7")}


def whole_runs() -> dict[str, Any]:
    """Twenty SIGKILLs of whole runs on 1, 2 and 3 ranks; ranks changed on the way; a suspended run woken."""
    counts = {
        f"{world} ranks": python("tests.kills.whole_run", "kills", str(world), str(kills), "11")
        for world, kills in ((1, 8), (2, 7), (3, 5))
    }
    return {
        **counts,
        "2, 1, 3 ranks": python("tests.kills.whole_run", "worlds"),
        "suspended": python("tests.kills.whole_run", "suspended"),
        "full disk": python("tests.kills.whole_run", "full_disk"),
    }


def faults() -> dict[str, Any]:
    """Every fault in one of two torchrun ranks: named rank, time to notice, what is left, same ledger head afterwards."""
    return python("tests.faults.faults")


def planted_bugs() -> dict[str, Any]:
    """Planted bugs, each named by `aisc prove`; it passes on every engine and objective, with experts, with an adapter."""
    return python("tests.prove.bugs", "soak")


def shipped_experiments() -> dict[str, Any]:
    """Every training stage of every shipped experiment passes `aisc prove --reduced`; how many comparisons hold."""
    return python("tests.prove.shipped", "full")


def engine_matrix(model: str) -> dict[str, Any]:
    """Every legal case of one model; the largest differences from the plain loop by form and adapter."""
    found = python("tests.distributed.matrix", "all", model)["cases"]
    bad = [name for name, result in found.items() if not result["holds"]]
    if bad:
        raise SystemExit(f"{len(bad)} of {len(found)} cases are not the plain loop, first {bad[0]}: {found[bad[0]]}")
    rows: dict[str, dict[str, Any]] = {}
    for result in found.values():
        row = rows.setdefault(f"{result['form']}, {result['adapter']}", {"cases": 0, "loss": 0.0, "grad_norm": 0.0})
        row["cases"] += 1
        for key in ("loss", "grad_norm"):
            row[key] = max(row[key], result[key])
    return {"cases": len(found), "by form": rows}


def resharding() -> dict[str, Any]:
    """Every chain of engines and ranks, full and LoRA, beside a run left alone."""
    found = {}
    for chain in CHAINS:
        for adapter in ("none", "lora"):
            counts = found[f"{chain}, {adapter}"] = python("tests.distributed.reshard", chain, adapter)
            if max(counts["loss"], counts["eval_loss"]) > BOUND:
                raise SystemExit(f"{chain}, {adapter}: {counts}")
    return found


def through_the_queue(name: str, count: int) -> dict[str, Any]:
    """Runs disturbed on a real Slurm of three nodes, as tests/slurm/scenarios.py says."""
    return python("tests.slurm.scenarios", name, str(count))


def goodput() -> dict[str, Any]:
    """The long form of tests/slurm/test_goodput.py: planted phases of 200 s and more, one rank killed, beside sacct."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "tests/slurm/test_goodput.py"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "AISC_GOODPUT": "long"}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-3000:])
    said = [line.lstrip(". ") for line in done.stdout.splitlines()]
    return {"said": [line for line in said if line.startswith(("start ", "phases "))]}


def nodecheck() -> dict[str, Any]:
    """Twenty sound starts without a false alarm; every node made slow, full and wrong is named and avoided."""
    return python("tests.slurm.nodecheck", "20", "3")


def chains() -> dict[str, Any]:
    """Both shipped chains, reduced, from raw data to a released folder, here and through Slurm, with equal ledgers."""
    return {name: python("tests.chains.both_ways", name) for name in ("hkgai", "oncology")}


def icd_preference() -> dict[str, Any]:
    """SmolLM2 on sibling ICD-10-CM codes, three seeds: above the model it began from, above words and length."""
    found = python("tests.runs.icd_preference")
    # What was kept to go on with: the next time it is trained again, by the code of that time.
    shutil.rmtree(ROOT / ".cache" / "icd-soak")
    return found


def python(*arguments: str) -> dict[str, Any]:
    """Runs a module of ours in a fresh process and returns the counts that it prints last."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stderr[-3000:]}{done.stdout[-2000:]}")
    last = done.stdout.splitlines()[-1]
    counts: dict[str, Any] = json.loads(last) if '"' in last else ast.literal_eval(last)
    return counts


# What these count: see tests/slurm/scenarios.py; the first two and `chained` take several portions of 25 minutes.
SLURM_COUNTS = {"requeued": 10, "preempted": 10, "limited": 2, "cut": 2, "restarted": 2, "sharded": 2, "chained": 200}
SHARDS = {
    "save-protocol": Shard(SAVING, save_protocol, 7),
    "whole-run-kills": Shard(RUNNING, whole_runs, 11),
    "prove": Shard(PROVING, planted_bugs, 1),
    "prove-shipped": Shard(SHIPPED, shipped_experiments, 1),
    "faults": Shard(FAULTS, faults, 0),
    **{
        f"engines-{model.removeprefix('tiny_')}": Shard(ENGINES, partial(engine_matrix, model), 1) for model in MODELS
    },
    "slurm-goodput": Shard(GOODPUT, goodput, 0),
    "nodecheck": Shard(NODECHECK, nodecheck, 0),
    "icd-preference": Shard(ICD_PAIRS, icd_preference, 1),
    "chains": Shard(CHAINED, chains, 1),
    "resharding": Shard(RESHARDING, resharding, 1),
    **{f"slurm-{name}": Shard(QUEUE, partial(through_the_queue, name, count), 3) for name, count in SLURM_COUNTS.items()},
}


def main(names: list[str]) -> int:
    """Runs shards and records what they counted."""
    for name in names or SHARDS:
        shard, path = SHARDS[name], FOLDER / f"{name}.json"
        if not names and path.exists() and not changed_files(path):
            print(f"{name}: evidence holds")
            continue
        start = time.monotonic()
        counts = shard.make()
        record(name, covers=shard.covers, result="met", counts=counts, seed=shard.seed, command=f"python -m tests.soak {name}")
        print(f"{name}: met, {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
