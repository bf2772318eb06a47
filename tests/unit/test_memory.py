"""Bytes per rank by part, against arithmetic on paper; running ranks are measured in tests/distributed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from configs.memory import ENGINES, PARTS, Bytes, Memory, Model, Setup, ZeroSizes, estimate, model_of
from tests.unit.test_model_shapes import PRESETS

GIB = 2**30
# 3 matrices and 2 vectors, by hand: embedding 10 x 6 (tied), one layer of attention 6 x 6 (4 of them), gated 4 wide.
VALUES: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 10,
    "hidden_size": 6,
    "intermediate_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "tie_word_embeddings": True,
}
MATRICES, VECTORS = 60 + 4 * 36 + 3 * 24, 3 * 6
ALL = MATRICES + VECTORS


def model(values: dict[str, Any] = VALUES, **lora: Any) -> Model:
    found = model_of(values, lora or None)
    assert found is not None
    return found


def setup(engine: str, ranks: int = 4, **changes: Any) -> Setup:
    given: dict[str, Any] = {
        "precision": "fp32",
        "optimizer": "adamw",
        "micro_batch_size": 1,
        "sequence_length": 8,
        "zero": ZeroSizes(persistent=0),
    }
    return Setup(engine=engine, ranks=ranks, **{**given, **changes})


def held(engine: str, rank: int | None = None, **changes: Any) -> Memory:
    return estimate(model(), setup(engine, **changes), rank)


def states(memory: Memory) -> tuple[Bytes, Bytes, Bytes]:
    return memory.parameters, memory.gradients, memory.optimizer


def test_ddp_holds_all() -> None:
    # 9 weights and 3 norms are 11 tensors (the head is the embedding), each with a counter.
    tensors = 1 + 4 + 3 + 3
    assert states(held("ddp")) == (Bytes(4 * ALL), Bytes(4 * ALL), Bytes(8 * ALL + 4 * tensors))
    assert states(held("ddp", optimizer="sgd"))[2] == Bytes(0)


def test_zero1_and_2_pad_each_group_to_twice_the_ranks() -> None:
    matrices, vectors = 280, 24
    assert (matrices, vectors) == (MATRICES + 4, VECTORS + 6)
    partition = (matrices + vectors) // 4
    for engine in ("zero1", "zero2"):
        assert states(held(engine))[0] == Bytes(4 * (matrices + vectors))
        assert states(held(engine))[2] == Bytes(12 * partition + 4 * 2)
        # bf16 halves the weights and nothing of the optimizer.
        assert states(held(engine, precision="bf16"))[0] == Bytes(2 * (matrices + vectors))
        assert states(held(engine, precision="bf16"))[2] == Bytes(12 * partition + 4 * 2)


def test_gradients_of_zero1_are_whole_and_of_zero2_the_tensors_of_a_partition() -> None:
    assert held("zero1").gradients == Bytes(4 * ALL)
    # A partition of the matrices is 70 wide: the first touches the embedding (60) and q_proj (36), the second q_proj,
    # k_proj and v_proj (60 + 36 + 36 + 8 begins at 140: v_proj is 132 to 168). Norms: 6 wide, one each, the last none.
    assert held("zero2", rank=0).gradients == Bytes(4 * (60 + 36 + 6))
    assert held("zero2", rank=1).gradients == Bytes(4 * (3 * 36 + 6))
    assert held("zero2", rank=2).gradients == Bytes(4 * (36 + 36 + 24 + 6))
    assert held("zero2", rank=3).gradients == Bytes(4 * (24 * 3))
    assert held("zero2").gradients == Bytes(4 * (3 * 36 + 6))
    # Summed in fp32 beside bf16 weights, a partition is exact; ZeRO-1 keeps both kinds.
    assert held("zero2", precision="bf16").gradients == Bytes(4 * 76)
    assert held("zero1", precision="bf16").gradients == Bytes(6 * ALL)


def test_zero3_pads_each_tensor_to_the_ranks() -> None:
    parts = 15 + 4 * 9 + 3 * 6 + 3 * 2
    assert states(held("zero3")) == (Bytes(4 * parts), Bytes(4 * parts), Bytes(12 * parts + 8))
    # Small tensors stay whole beside their parts.
    kept = held("zero3", zero=ZeroSizes(persistent=6))
    assert kept.parameters == Bytes(4 * (parts + 18))


def test_fsdp2_pads_rows_and_only_of_weights_and_gradients() -> None:
    # Rows of 10, 6 and 4 over 4 ranks: 3, 2 and 1.
    shard = 3 * 6 + 4 * 2 * 6 + 2 * 1 * 6 + 2 * 4 + 3 * 2
    assert states(held("fsdp2", rank=0)) == (Bytes(4 * shard), Bytes(4 * shard), Bytes(8 * shard + 4 * 11))
    # The last rank has 1 row of 10 and none of 6.
    assert held("fsdp2", rank=3).optimizer == Bytes(8 * (1 * 6 + 2 * 6) + 4 * 11)
    assert held("fsdp2", rank=3).parameters == Bytes(4 * shard)


def test_hybrid_sharding_holds_what_its_smaller_group_holds() -> None:
    hybrid, two = held("fsdp2", shard_size=2), held("fsdp2", ranks=2)
    assert states(hybrid) == states(two)
    assert hybrid.total.accelerator == two.total.accelerator


def test_offload_moves_to_the_host() -> None:
    partition = 76
    for engine in ("zero1", "zero2"):
        moved = held(engine, offload_optimizer=True)
        assert moved.optimizer == Bytes(host=12 * partition + 8)
        assert moved.gradients.host == 4 * partition
        assert moved.parameters == held(engine).parameters
    moved = held("zero3", offload_optimizer=True, offload_parameters=True)
    assert [part.accelerator for part in states(moved)] == [0, 0, 0]
    moved = held("fsdp2", offload_parameters=True)
    assert [part.accelerator for part in states(moved)] == [0, 0, 0]
    assert [part.host for part in states(moved)] == [part.accelerator for part in states(held("fsdp2"))]


def test_a_save_behind_the_training_copies_this_ranks_part() -> None:
    with_copy, without = held("zero3"), held("zero3", saves_behind=False)
    assert with_copy.buffers.host - without.buffers.host == 12 * ALL // 4
    assert with_copy.total.accelerator == without.total.accelerator


def test_an_adapter_trains_its_own_only() -> None:
    adapted = model(VALUES, rank=2, target_modules=["q_proj"])
    memory = estimate(adapted, setup("ddp", frozen_bytes=2))
    assert memory.parameters == Bytes(2 * ALL + 4 * 2 * 12)
    assert memory.gradients == Bytes(4 * 24)
    assert memory.optimizer == Bytes(8 * 24 + 4 * 2)
    # ZeRO-3 shares out frozen weights too, and 1 and 2 do not.
    assert estimate(adapted, setup("zero2")).parameters == Bytes(4 * (ALL + 24))
    assert estimate(adapted, setup("zero3")).parameters == Bytes(4 * (15 + 36 + 18 + 6 + 2 * 3))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_parts_add_up(engine: str, precision: str) -> None:
    memory = held(engine, precision=precision)
    assert memory.total.accelerator == sum(getattr(memory, part).accelerator for part in PARTS)
    assert memory.total.host == sum(getattr(memory, part).host for part in PARTS)
    assert all(getattr(memory, part).accelerator >= 0 for part in PARTS)


@pytest.mark.parametrize("name", ["llama3.1_8b", "qwen3_32b", "deepseek_v3"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_stage_holds_less_than_the_one_before(name: str, precision: str) -> None:
    whole = model(PRESETS[name])
    for ranks in (4, 8, 64):
        memories = [estimate(whole, setup(engine, ranks, precision=precision)) for engine in ENGINES[:4]]
        static = [sum(part.accelerator for part in states(memory)) for memory in memories]
        assert static == sorted(static, reverse=True) and len(set(static)) == 4
    sharded = states(estimate(whole, setup("fsdp2", 64, precision=precision)))
    assert sum(part.accelerator for part in sharded) == pytest.approx(static[3], rel=0.3)


def test_the_worst_rank_is_the_most_of_any() -> None:
    for engine in ENGINES:
        worst = held(engine)
        for part in PARTS:
            of_ranks = [getattr(held(engine, rank), part).accelerator for rank in range(4)]
            assert getattr(worst, part).accelerator == max(of_ranks), (engine, part)


def test_sixteen_bytes_a_parameter() -> None:
    # ZeRO's own sum for mixed precision with Adam, 16 bytes a parameter at 1 rank, and its shares at 64 (section 3.1,
    # figure 1): gradients here are 4 bytes, as they add up in fp32, not 2.
    whole = model(PRESETS["llama3.1_8b"])
    size = sum(p.numel for p in whole.parameters)
    expected = {"zero1": 2 + 6 + 12 / 64, "zero2": 2 + (4 + 12) / 64, "zero3": (2 + 4 + 12) / 64}
    for engine, each in expected.items():
        parts = states(estimate(whole, setup(engine, 64, precision="bf16")))
        assert sum(part.accelerator for part in parts) / size == pytest.approx(each, rel=2e-3)


def test_memory_follows_the_batch() -> None:
    whole = model(PRESETS["qwen3_8b"])
    one, two = (estimate(whole, setup("zero3", 8, micro_batch_size=rows, sequence_length=2048)) for rows in (1, 2))
    assert two.activations.accelerator == 2 * one.activations.accelerator
    assert dataclasses.replace(two, activations=one.activations, logits=one.logits) == one


def test_an_unknown_family_has_no_model() -> None:
    assert model_of({"model_type": "mamba"}) is None
