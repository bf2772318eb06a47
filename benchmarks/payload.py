"""Bytes that one update hands to collectives, beside the formula.    python -m benchmarks.payload [--quick]

Two processes, a Llama of two layers, three micro-batches, one update of train/step.py under torch's profiler with shapes
recorded; the payload is what this process puts in. Some weights have an odd number of rows, so that FSDP2 pads.

    ddp      every gradient once an update, however many micro-batches (fp32)
    fsdp2    each micro-batch: weights of every decoder layer gathered for the forward and again for the backward pass,
             those of the last group (embeddings, norm, head) once; every gradient reduced in fp32. A weight's rows are
             shared out in equal numbers, rounded up: what is put in is this process's padded part of the weights, and
             the whole padded gradient. In bf16 weights travel in 2 bytes.

Beside these every update makes small exchanges: counts, losses and the ranks' times (fp64), FSDP2's gradient norm. They
are listed.
Predicted: equal to the byte.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.evidence import record
from benchmarks.ranks import run_ranks
from benchmarks.screen import show, verdict
from configs.schema import EngineSection, TrainingSection
from train import distributed
from train.engines import build_engine
from train.objectives import Sft
from train.pace import Pace
from train.rehearsal import worst_batch
from train.scores import Scores
from train.step import train_step

PREDICTION = {"difference_bytes": 0, "small_exchanges_bytes": 1024}
COVERS = ["train/step.py", "train/engines/ddp.py", "train/engines/fsdp2.py", "train/engines/local.py", "benchmarks/payload.py"]
WORLD = 2
MICRO_BATCHES = 3
CASES = [("ddp", "fp32"), ("ddp", "bf16"), ("fsdp2", "fp32"), ("fsdp2", "bf16")]
ITEM_BYTES = {"float": 4, "c10::BFloat16": 2, "c10::Half": 2, "double": 8, "long int": 8, "unsigned char": 1, "int": 4}
SMALL_BYTES = 256


def make_model() -> nn.Module:
    """Returns a Llama some of whose weights two processes cannot share evenly (1,001 and 335 rows)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1001,
        hidden_size=132,
        intermediate_size=335,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=44,
        use_cache=False,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    model: nn.Module = LlamaForCausalLM(config)
    return model


def formula(model: nn.Module, engine: str, precision: str) -> dict[str, int]:
    """Returns the bytes by kind of collective."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if engine == "ddp":
        return {"all_reduce": 4 * sum(prod(shape) for shape in shapes.values())}
    in_layers = sum(padded_part(shape) for name, shape in shapes.items() if ".layers." in name)
    in_root = sum(padded_part(shape) for name, shape in shapes.items() if ".layers." not in name)
    weight_bytes = 2 if precision == "bf16" else 4
    return {
        "all_gather": MICRO_BATCHES * weight_bytes * (2 * in_layers + in_root),
        "reduce_scatter": MICRO_BATCHES * 4 * WORLD * (in_layers + in_root),
    }


def padded_part(shape: tuple[int, ...]) -> int:
    """Returns the elements of one rank's part of a weight, padding included."""
    return -(-shape[0] // WORLD) * prod(shape[1:])


def measure_rank(engine_name: str, precision: str) -> dict[str, Any]:
    """Is one of the processes; returns measured and expected bytes by kind, and the small exchanges."""
    context = distributed.start("gloo", "cpu", needs_group=True)
    training = TrainingSection(precision=precision, max_grad_norm=1.0)
    engine = build_engine(EngineSection(name=engine_name), training, context)
    model = make_model()
    expected = formula(model, engine_name, precision)

    def make_optimizer(named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.SGD([parameter for _, parameter in named], lr=0.1)

    module = engine.prepare(Scores(model, precision=precision if engine.autocasts else "fp32"), make_optimizer)
    objective = Sft()
    window = [worst_batch(1, 16, 1001, torch.device("cpu")) for _ in range(MICRO_BATCHES)]
    pace = Pace(context.rank, context.world_size)
    pace.begin()
    # DDP makes its final buckets after the first backward pass.
    train_step(engine, module, objective, window, stop=False, pace=pace)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
        pace.begin()
        train_step(engine, module, objective, window, stop=False, pace=pace)
    with tempfile.TemporaryDirectory() as name:
        profile.export_chrome_trace(f"{name}/trace.json")
        events = json.loads(Path(f"{name}/trace.json").read_text(encoding="utf-8"))["traceEvents"]
    distributed.shutdown()
    found, small = payload(events)
    return {"measured": found, "expected": expected, "small": small}


def payload(events: list[dict[str, Any]]) -> tuple[dict[str, int], list[int]]:
    """Returns the bytes put into large collectives, by kind, and the sizes of the small ones.

    Over gloo a reduce-scatter is carried out as an all-reduce of the whole, which is taken off again.
    """
    found: Counter[str] = Counter()
    small = []
    for event in events:
        name, values = event.get("name", ""), event.get("args", {})
        if name == "gloo:all_reduce":
            size = sum(
                prod(shape) * ITEM_BYTES[kind]
                for shape, kind in zip(values["Input Dims"], values["Input type"], strict=True)
            )
            if size > SMALL_BYTES:
                found["all_reduce"] += size
            else:
                small.append(size)
        elif name in ("c10d::_allgather_base_", "c10d::_reduce_scatter_base_"):
            kind = "all_gather" if "gather" in name else "reduce_scatter"
            size = prod(values["Input Dims"][1]) * ITEM_BYTES[values["Input type"][1]]
            found[kind] += size
            found["all_reduce"] -= size if kind == "reduce_scatter" else 0
    return {kind: size for kind, size in found.items() if size}, sorted(small)


def measure(cases: list[tuple[str, str]]) -> dict[str, Any]:
    """Runs the cases; returns prediction, measurements and verdict."""
    rows = []
    exact = True
    for engine, precision in cases:
        for rank, found in enumerate(run_ranks("benchmarks.payload", WORLD, "--rank-of", engine, precision)):
            exact &= found["measured"] == found["expected"] and sum(found["small"]) <= PREDICTION["small_exchanges_bytes"]
            for kind in sorted(found["measured"].keys() | found["expected"].keys()):
                rows.append(
                    {
                        "name": f"{engine} {precision}, process {rank}",
                        "collective": kind,
                        "bytes": found["measured"].get(kind, 0),
                        "formula": found["expected"].get(kind, 0),
                        "small": " + ".join(map(str, found["small"])),
                    }
                )
    return {
        "result": verdict(exact, f"{len(rows)} sums of bytes equal to the formula" if exact else "a sum differs"),
        "prediction": PREDICTION,
        "measured": rows,
        "micro_batches": MICRO_BATCHES,
    }


def main() -> None:
    """Runs the benchmark and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fp32 only, leave docs/evidence as it is")
    parser.add_argument("--rank-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        print(json.dumps(measure_rank(*arguments.rank_of)))
        return
    result = measure([case for case in CASES if case[1] == "fp32"] if arguments.quick else CASES)
    show("payload", result)
    if not result["result"].startswith("met"):
        raise SystemExit(result["result"])
    if not arguments.quick:
        record("payload", covers=COVERS, result=result.pop("result"), counts=result)


if __name__ == "__main__":
    main()
