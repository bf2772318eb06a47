"""How long a save keeps the training waiting, beside a bare copy.    python -m benchmarks.saving [--quick]

Two processes, each with its own shards of weights and two moments. Turn by turn, at the same moment on both: the tensors
are copied into buffers that are reused (the reference), a checkpoint of the same tensors is saved by `Checkpointer.save`,
which returns after its own copy, and after its publication they are copied again; so neither runs beside a write. The
first turn makes buffers and plan and does not count. The ratio is that of wall times of one turn, its median over the
turns, the slower process. Beside it CPU seconds of the main thread, which a busy machine does not change, and the time
from the call of save to the checkpoint published.

Predicted: at most 1.5x the copy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.evidence import record
from benchmarks.ranks import run_ranks
from benchmarks.screen import show, verdict
from configs.runfolder import RunFolder
from train import distributed
from train.checkpoint import start_attempt
from train.checkpointer import Checkpointer
from train.shards import LocalShard

PREDICTION = {"stall_to_copy": 1.5}
COVERS = [
    "train/checkpointer.py",
    "train/checkpoint_files.py",
    "train/shard_files.py",
    "train/shard_plan.py",
    "benchmarks/saving.py",
]
WORLD = 2
MIB = 2**20
LAYERS = 12


def make_state(context: distributed.Context, mib: int) -> dict[str, list[LocalShard]]:
    """Returns this rank's half of weights and moments, about `mib` MiB of fp32 in 7 matrices and 2 vectors a layer."""
    width = int((mib * MIB / 4 / 3 / LAYERS / 12) ** 0.5)
    shapes = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width), (width,), (width,)]
    state = {}
    for layer in range(LAYERS):
        for number, shape in enumerate(shapes):
            for key in ("model", "optimizer.exp_avg", "optimizer.exp_avg_sq"):
                whole = (WORLD * shape[0], *shape[1:])
                offsets = (context.rank * shape[0], *(0 for _ in shape[1:]))
                shard = LocalShard(torch.rand(shape), whole, offsets)
                prefix, _, last = key.partition(".")
                state[f"{prefix}.layers.{layer}.{number}.weight{'.' if last else ''}{last}"] = [shard]
    return state


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Returns the seconds, and the CPU seconds of this thread, that `work` takes, begun on all ranks together."""
    distributed.barrier()
    began, began_cpu = time.perf_counter(), time.thread_time()
    work()
    return time.perf_counter() - began, time.thread_time() - began_cpu


def measure_rank(folder: Path, mib: int, saves: int) -> dict[str, Any]:
    """Is one of the processes."""
    context = distributed.start("gloo", "cpu")
    run = RunFolder(folder / "run")
    start = start_attempt(run, {}, context)
    checkpointer = Checkpointer(start.attempt, run, context, keep=1)
    state = make_state(context, mib)
    tensors = [shard.tensor for shards in state.values() for shard in shards]
    buffers = [torch.empty_like(tensor) for tensor in tensors]
    rows = []
    for turn in range(saves + 1):
        train(tensors)
        before = timed(lambda: copy(tensors, buffers))
        began = time.perf_counter()
        stall = timed(partial(checkpointer.save, turn + 1, state, {"step": turn + 1}))
        checkpointer.wait()
        published = time.perf_counter() - began
        after = timed(lambda: copy(tensors, buffers))
        copied = [(x + y) / 2 for x, y in zip(before, after, strict=True)]
        figures = {"copy": copied[0], "stall": stall[0], "copy_cpu": copied[1], "stall_cpu": stall[1]}
        rows.append({**figures, "ratio": stall[0] / copied[0], "published": published})
    distributed.shutdown()
    medians = {key: statistics.median(row[key] for row in rows[1:]) for key in rows[0]}
    return {**medians, "first_stall": rows[0]["stall"], "bytes": sum(t.nbytes for t in tensors)}


def train(tensors: list[Tensor]) -> None:
    """Changes every element, as an update does."""
    for tensor in tensors:
        tensor.add_(1.0)


def copy(tensors: list[Tensor], buffers: list[Tensor]) -> None:
    """Copies every tensor."""
    for tensor, buffer in zip(tensors, buffers, strict=True):
        buffer.copy_(tensor)


def measure(mib: int, saves: int) -> dict[str, Any]:
    """Runs the processes; returns prediction, measurements and verdict."""
    with tempfile.TemporaryDirectory() as name:
        ranks = run_ranks("benchmarks.saving", WORLD, "--rank-in", name, "--mib", str(mib), "--saves", str(saves))
    ratio = max(rank["ratio"] for rank in ranks)
    figures = f"{ratio:.2f}x the copy of {ranks[0]['bytes'] / 1e6:.0f} MB a process ({ranks[0]['copy'] * 1000:.0f} ms)"
    return {
        "result": verdict(ratio <= PREDICTION["stall_to_copy"], figures),
        "prediction": PREDICTION,
        "measured": [{"name": f"process {number}", **rank} for number, rank in enumerate(ranks)],
        "saves": saves,
        "ratio": {
            "stall_to_copy": ratio,
            "stall_to_copy_cpu": max(rank["stall_cpu"] / rank["copy_cpu"] for rank in ranks),
            "stall_to_whole_save": max(rank["stall"] / rank["published"] for rank in ranks),
        },
    }


def main() -> None:
    """Runs the benchmark and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once at small size, leave docs/evidence as it is")
    parser.add_argument("--mib", type=int, default=150)
    parser.add_argument("--saves", type=int, default=20)
    parser.add_argument("--rank-in", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_in:
        print(json.dumps(measure_rank(arguments.rank_in, arguments.mib, arguments.saves)))
        return
    result = measure(*((8, 3) if arguments.quick else (arguments.mib, arguments.saves)))
    show("saving", result)
    if not arguments.quick:
        record("saving", covers=COVERS, result=result.pop("result"), counts=result)


if __name__ == "__main__":
    main()
