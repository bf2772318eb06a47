"""One run that changes engine and number of ranks on the way, beside one left alone on a single process.

    python -m tests.distributed.reshard CHAIN none|lora

Prints one line of JSON. Ledger heads must be the same at every step; losses within the bound.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from configs.runfolder import RunFolder, read_ledger, read_metrics, state_of
from tests.distributed.parity import import_stack
from tests.kills.lab import Lab, only_run
from tests.kills.whole_run import moment_has_come
from train.checkpoint_reading import find_latest

STEPS = 18
BOUND = 1e-5
OPTIONS = (
    "data.sequence_length=64",
    "data.workers=1",
    "training.micro_batch_size=1",
    "training.global_batch_size=6",
    f"training.duration={STEPS} steps",
    "training.min_steps=0",
    "checkpoint.every=100 steps",
    "evaluation.every=9 steps",
    "evaluation.replies=1",
    "evaluation.max_new_tokens=4",
    "optimizer={lr: 1e-3, eps: 1e-6}",
)
# ZeRO-3 keeps weights below a threshold whole; here all are shared out.
SHARED = "engine.deepspeed={zero_optimization: {stage3_param_persistence_threshold: 0}}"
# (ranks, options of the engine), one start after the other; the last one runs to the end.
CHAINS: dict[str, list[tuple[int, list[str]]]] = {
    "engines": [(2, ["engine=zero2"]), (2, ["engine=fsdp2"]), (2, ["engine=zero3", SHARED])],
    "ranks": [(2, ["engine=zero3", SHARED]), (4, ["engine=zero3", SHARED]), (1, ["engine=zero3"])],
    "both": [(2, ["engine=zero2"]), (4, ["engine=fsdp2"]), (1, ["engine=zero3"])],
    "fsdp2": [(2, ["engine=fsdp2"]), (4, ["engine=fsdp2", "engine.shard_size=2"]), (1, ["engine=ddp"])],
    "zero1": [(2, ["engine=ddp"]), (3, ["engine=zero1"]), (2, ["engine=zero3", SHARED])],
}
ADAPTERS = {"none": [], "lora": ["adapter=lora", "adapter.rank=4"]}


def change(chain: str, adapter: str) -> dict[str, Any]:
    """Runs the chain and the run left alone; returns how far their losses are from each other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        import_stack()
        lab = Lab(folder, [*OPTIONS, *ADAPTERS[adapter]])
        alone = lab.run(folder / "alone", 1, "engine=ddp")
        starts = CHAINS[chain]
        stops = []
        for number, (world, options) in enumerate(starts[:-1], start=1):
            process = lab.start(folder / "changing", world, *options)
            reached = process.until(moment_has_come("step", number, STEPS * number // (len(starts) + 1)))
            assert reached, logs(folder / "changing")
            process.send(signal.SIGTERM)
            codes = process.wait()
            assert codes == [75] * world, logs(folder / "changing")
            run = only_run(folder / "changing")
            assert state_of(run.path).state == "stopped"
            newest = find_latest(run)[0]
            assert newest is not None
            stops.append(newest.step)
        world, options = starts[-1]
        return {"stopped_at": stops, **compare(alone, lab.run(folder / "changing", world, *options))}


def compare(alone: RunFolder, changed: RunFolder) -> dict[str, Any]:
    """Returns the largest relative differences of losses and gradient norms; ledgers must be equal."""
    heads = [[line["head"] for line in read_ledger(run.path)] for run in (alone, changed)]
    assert len(heads[0]) == STEPS
    assert heads[0] == heads[1], "the ledgers differ"
    lines = [read_metrics(run.path) for run in (alone, changed)]
    found: dict[str, Any] = {"ledger": heads[0][-1], "attempts": len(changed.attempts())}
    for key in ("loss", "eval_loss", "grad_norm"):
        one, other = ({line["step"]: line[key] for line in part if key in line} for part in lines)
        assert one.keys() == other.keys(), key
        found[key] = max(abs(other[step] / one[step] - 1) for step in one)
    return found


def logs(run_dir: Path) -> str:
    """Returns the last lines that the ranks printed."""
    return "\n".join(path.read_text()[-2000:] for path in sorted(run_dir.glob("log-*"))[-4:])


if __name__ == "__main__":
    print(json.dumps(change(*sys.argv[1:])))
