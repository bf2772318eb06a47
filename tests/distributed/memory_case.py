"""What four running ranks hold under each engine, counted storage by storage, beside what configs/memory.py says.

    python -m tests.distributed.memory_case

Prints one line of JSON: for each engine and rank the bytes of parameters, gradients and optimizer state, of every live
tensor, resident memory, and the formula's bytes. Weights are random, rows short: what is measured does not depend on them.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from configs.memory import ENGINES, Model, Setup, ZeroSizes, estimate, model_of
from configs.model_shapes import numel
from configs.schema import EngineSection, ModelSection, OptimizerSection, TrainingSection
from train import distributed, models
from train.attention import VARLEN_CPU
from train.engines import Engine, build_engine
from train.objectives import Sft
from train.optimizer import build_optimizer
from train.prove.forked import run_ranks
from train.rehearsal import worst_batch
from train.reward_scores import RewardScores
from train.scores import Scores

RANKS = 4
LAYERS = 12
# Engine, precision, layers, whether it is a reward model.
CASES = [
    *((name, "fp32", LAYERS, False) for name in ENGINES),
    *((f"zero{stage}", "bf16", 2, False) for stage in (1, 2, 3)),
    ("ddp", "fp32", 2, True),
]
ROWS, LENGTH = 1, 8
# 119 M parameters. Rows of 3,326 and 8,004 do not divide by 4 and 8, so that padding shows.
VALUES: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 8004,
    "hidden_size": 768,
    "intermediate_size": 3326,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
    "tie_word_embeddings": True,
}
# A model of this size would stay gathered whole under DeepSpeed's own limits, which are meant for a thousand times more.
ZERO = ZeroSizes(bucket=10_000_000, buckets=1, live=10_000_000, persistent=1_000)
DEEPSPEED = {
    "zero_optimization": {
        "reduce_bucket_size": ZERO.bucket,
        "stage3_max_live_parameters": ZERO.live,
        "stage3_max_reuse_distance": ZERO.live,
        "stage3_prefetch_bucket_size": ZERO.live // 2,
        "stage3_param_persistence_threshold": ZERO.persistent,
    }
}
STACK = ("accelerate", "deepspeed", "transformers.models.llama.modeling_llama", "torch.distributed.fsdp")


def case_name(name: str, precision: str, layers: int, is_reward: bool) -> str:
    """Returns what a case is called: `zero2 bf16`, `ddp fp32 reward`."""
    return f"{name} {precision}{' reward' if is_reward else ''}"


def unique_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Returns the bytes of the storages behind `tensors`, each storage once."""
    storages = {}
    for tensor in tensors:
        if tensor is not None:
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            storage = local.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(size for pointer, size in storages.items() if pointer)


def held_parameters(engine: Engine, scores: Scores) -> list[Tensor | None]:
    """Returns the weights that the model computes with, or this rank's parts of them."""
    found: list[Tensor | None] = []
    for parameter in scores.parameters():
        found += [parameter.data, getattr(parameter, "ds_tensor", None)]
    return found


def held_gradients(engine: Engine, scores: Scores) -> list[Tensor | None]:
    """Returns every gradient: of parameters, and where DeepSpeed keeps what it has reduced."""
    found: list[Tensor | None] = [parameter.grad for parameter in scores.parameters()]
    found += [getattr(parameter, "grad_accum", None) for parameter in scores.parameters()]
    for name in ("averaged_gradients", "all_grad_tensors"):
        for group in getattr(engine.optimizer, name, {}).values():
            found += group or []
    found.append(getattr(engine.optimizer, "grad_partitions_flat_buffer", None))
    found += getattr(engine.optimizer, "fp32_groups_gradients_flat", [])
    return found


def held_optimizer(engine: Engine, scores: Scores) -> list[Tensor | None]:
    """Returns moments, step counters, and fp32 masters where the engine keeps them apart."""
    zero: Any = engine.optimizer
    found: list[Tensor | None] = []
    for state in getattr(zero, "optimizer", zero).state.values():
        found += [value for value in state.values() if torch.is_tensor(value)]
    for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat", "fp32_groups_flat_partition"):
        found += getattr(zero, name, [])
    return found


def every_tensor() -> list[Tensor]:
    """Returns all tensors of this process that Python knows."""
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, Tensor) and thing.device.type == "cpu"]


def resident_bytes() -> int:
    """Returns the resident memory of this process, after freed memory has gone back to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def constant_model(layers: int, is_reward: bool) -> nn.Module:
    """Returns the model with every weight the same: drawing them would take most of the time."""
    with no_init_weights():
        network = models.load_model(
            ModelSection(arch={**VALUES, "num_hidden_layers": layers}, random_weights=True),
            dtype=torch.float32,
            attention_name=VARLEN_CPU,
            device=torch.device("cpu"),
            seed=1,
            is_reward=is_reward,
        )
    network.tie_weights()  # type: ignore[operator]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.01)
    return network


def measure(name: str, precision: str, layers: int, is_reward: bool) -> dict[str, Any]:
    """Makes an update and returns what this rank holds in the second one, when gradients take most."""
    at_first = resident_bytes()
    started = time.monotonic()
    context = distributed.start("gloo", "cpu", needs_group=True)
    try:
        section = EngineSection(name=name, backend="gloo", deepspeed=DEEPSPEED if name.startswith("zero") else None)
        training = TrainingSection(precision=precision, micro_batch_size=ROWS)
        engine = build_engine(section, training, context)
        kind = RewardScores if is_reward else Scores
        scores = kind(constant_model(layers, is_reward), precision=precision if engine.autocasts else "fp32")
        module = engine.prepare(scores, lambda named: build_optimizer(OptimizerSection(name="adamw"), named, 1e-4))
        objective, batch = Sft(), worst_batch(ROWS, LENGTH, VALUES["vocab_size"], context.device)

        def micro_batch(last: bool) -> None:
            with engine.micro_batch(last):
                loss = torch.stack([term.sum for term in objective.loss(module(batch), batch)]).sum()
                engine.backward(loss / (LENGTH * RANKS), last)

        micro_batch(last=True)
        engine.step()
        # ZeRO-1 alone holds other gradients between micro-batches (all of them) than when the update begins.
        micro_batch(last=name != "zero1")
        return {
            "parameters": unique_bytes(held_parameters(engine, scores)),
            "gradients": unique_bytes(held_gradients(engine, scores)),
            "optimizer": unique_bytes(held_optimizer(engine, scores)),
            "all": unique_bytes(every_tensor()),
            "resident": resident_bytes() - at_first,
            "seconds": round(time.monotonic() - started),
        }
    finally:
        distributed.shutdown()


def model(layers: int, is_reward: bool = False) -> Model:
    """Returns the model's shapes."""
    found = model_of({**VALUES, "num_hidden_layers": layers}, is_reward=is_reward)
    assert found is not None
    return found


def expected(name: str, precision: str, layers: int, is_reward: bool, rank: int) -> dict[str, int]:
    """Returns what configs/memory.py says that `rank` holds."""
    setup = Setup(
        engine=name,
        ranks=RANKS,
        precision=precision,
        optimizer="adamw",
        micro_batch_size=ROWS,
        sequence_length=LENGTH,
        zero=ZERO,
    )
    memory = estimate(model(layers, is_reward), setup, rank)
    return {part: getattr(memory, part).accelerator for part in ("parameters", "gradients", "optimizer", "buffers")}


def main() -> None:
    """Measures every engine in fp32, one after the other, and ZeRO in bf16 with fewer layers."""
    for name in STACK:
        importlib.import_module(name)
    found = {}
    for case in CASES:
        ranks = run_ranks(RANKS, measure, *case)
        found[case_name(*case)] = [{"held": held, "expected": expected(*case, rank)} for rank, held in enumerate(ranks)]
    print(json.dumps({"parameters": numel(model(LAYERS).parameters), "cases": found}))


if __name__ == "__main__":
    main()
