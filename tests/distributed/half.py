"""Whole runs in fp16 with a scaled loss, beside one in fp32; the scale begins so high that it overflows.

    python -m tests.distributed.half

Prints one line of JSON. A scale of 2**24 takes gradients beyond fp16's 65,504 until it has been halved often enough: every
rank must halve it at the same step, and take the same batch again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.runfolder import RunFolder, read_ledger, read_metrics
from tests.distributed.guarded import replaced
from tests.kills.lab import Lab

SCALE, STEPS = 2.0**24, 6
OPTIONS = (
    "data.sequence_length=64",
    "data.workers=1",
    "training.micro_batch_size=1",
    "training.global_batch_size=4",
    f"training.duration={STEPS} steps",
    "training.min_steps=0",
    "evaluation.every=end",
    "evaluation.replies=0",
    "optimizer.lr=1e-3",
    "lr_scheduler={name: constant, warmup: 0}",
    "guard.reference_check=false",
)
WAYS = {
    "ddp": ("engine=ddp",),
    "fsdp2": ("engine=fsdp2",),
    "fsdp2_offload, lora": ("engine=fsdp2", "engine.offload_parameters=true", "adapter=lora", "adapter.rank=4"),
}
RANKS = 2


def noting(plain: Callable[..., bool]) -> Callable[..., bool]:
    """Makes each rank write the scales that overflowed."""

    def overflowed(scale: Any) -> bool:
        with Path(os.environ["OVERFLOWS"], os.environ["RANK"]).open("a") as file:
            file.write(f"{scale.value}\n")
        return plain(scale)

    return overflowed


def ended(run: RunFolder) -> dict[str, Any]:
    """Returns the curves and the ledger's head."""
    lines = [line for line in read_metrics(run.path) if "loss" in line]
    curves = {key: [line[key] for line in lines] for key in ("loss", "grad_norm")}
    return {**curves, "head": read_ledger(run.path)[-1]["head"]}


def scenario(folder: Path) -> dict[str, Any]:
    """Runs everything."""
    os.environ["OMP_NUM_THREADS"] = "1"
    lab = Lab(folder, OPTIONS)
    from train import loss_scale

    found = {
        "full": ended(lab.run(folder / "full", 1, "training.precision=fp32")),
        "lora": ended(lab.run(folder / "lora", 1, "training.precision=fp32", "adapter=lora", "adapter.rank=4")),
    }
    for name, options in WAYS.items():
        overflows = folder / f"overflows-{name}"
        overflows.mkdir()
        os.environ["OVERFLOWS"] = str(overflows)
        with replaced(loss_scale, "INITIAL", lambda _: SCALE), replaced(loss_scale.LossScale, "overflowed", noting):
            run = lab.run(folder / name, RANKS, "training.precision=fp16", *options)
        scales = [[float(line) for line in path.read_text().split()] for path in sorted(overflows.iterdir())]
        found[name] = {**ended(run), "overflows": scales}
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(scenario(Path(temporary))))
