"""`engine: auto`: the cheapest engine that fits, with its reason; one sentence when nothing does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs import compose
from configs.engine_choice import Candidate, Choice, Machine, candidates, choose_engine
from configs.engine_rules import engine_problems
from configs.facts import Facts, gpu_memory_bytes, host_memory_bytes
from configs.memory import Model, Setup, estimate, model_of
from tests.unit.test_model_shapes import PRESETS

GIB = 2**30
H100 = 80 * GIB
ON_H100 = Machine(H100)


def model(name: str, **lora: Any) -> Model:
    found = model_of(PRESETS[name], lora or None)
    assert found is not None
    return found


def setup(ranks: int, **changes: Any) -> Setup:
    given: dict[str, Any] = {"precision": "bf16", "optimizer": "adamw", "micro_batch_size": 1, "sequence_length": 4096}
    return Setup(engine="ddp", ranks=ranks, **{**given, **changes})


def chosen(name: str, ranks: int, machine: Machine = ON_H100, **changes: Any) -> Choice:
    return choose_engine(model(name), setup(ranks, **changes), machine)


def test_a_small_model_takes_ddp() -> None:
    choice = chosen("qwen3_0.6b", 8)
    assert choice.candidate == Candidate("ddp") and choice.problem is None
    assert choice.reason.startswith("the cheapest, and it fits: ")


def test_larger_models_share_more() -> None:
    names = [chosen(name, 8, recompute="full").candidate.title for name in ("qwen3_4b", "qwen3_8b")]
    assert names == ["ddp", "zero2"]
    assert chosen("qwen3_4b", 8, Machine(64 * GIB), recompute="full").candidate.name == "zero1"
    assert chosen("llama3.3_70b", 32, recompute="full").candidate.name == "fsdp2"
    assert chosen("llama3.3_70b", 8, recompute="full").candidate.offload_optimizer


def test_the_reason_compares_with_the_next_cheaper() -> None:
    reason = chosen("qwen3_8b", 8, recompute="full").reason
    assert reason.startswith("the cheapest that fits: ") and "; zero1 needs " in reason


@pytest.mark.parametrize("ranks", [1, 2, 8, 64])
@pytest.mark.parametrize("name", ["smollm2_135m", "qwen3_8b", "llama3.3_70b", "deepseek_v3"])
def test_what_is_chosen_fits_and_nothing_cheaper_does(name: str, ranks: int) -> None:
    choice = chosen(name, ranks, recompute="full")
    order = candidates(ranks)
    room = int(0.92 * H100)
    needs = {
        candidate: estimate(
            model(name),
            Setup(
                engine=candidate.name,
                offload_optimizer=candidate.offload_optimizer,
                offload_parameters=candidate.offload_parameters,
                ranks=ranks,
                precision="bf16",
                optimizer="adamw",
                micro_batch_size=1,
                sequence_length=4096,
                recompute="full",
            ),
        ).total.accelerator
        for candidate in order
    }
    fitting = [candidate for candidate in order if needs[candidate] <= room]
    assert (choice.problem is None) == bool(fitting)
    assert choice.candidate == (fitting[0] if fitting else min(order, key=lambda candidate: needs[candidate]))


def test_one_process_goes_from_ddp_to_the_host() -> None:
    assert [candidate.name for candidate in candidates(1)] == ["ddp", "zero2", "zero3", "fsdp2", "zero3"]
    assert chosen("qwen3_8b", 1, recompute="full").candidate.offload_optimizer


def test_nothing_fits() -> None:
    problem = chosen("qwen3_8b", 1, Machine(16 * GIB), sequence_length=32768).problem
    assert problem is not None
    assert problem.startswith("engine.name=auto: nothing fits; the smallest, ")
    for help_ in ("training.gradient_checkpointing=full", "a shorter data.sequence_length", "more GPUs", "which has 14.7"):
        assert help_ in problem
    assert "adapter=lora" in str(chosen("llama3.3_70b", 8, Machine(8 * GIB), recompute="full").problem)


def test_the_host_has_to_have_room_too() -> None:
    large, small = (Machine(H100, host, 8) for host in (4096 * GIB, 256 * GIB))
    assert chosen("llama3.3_70b", 8, large, recompute="full").problem is None
    problem = chosen("llama3.3_70b", 8, small, recompute="full").problem
    assert problem is not None and "GiB of host memory for 8 ranks, this machine has 204.8;" in problem


def test_what_is_unknown_is_left_to_the_rehearsal() -> None:
    for choice in (
        choose_engine(None, setup(8), Machine(H100)),
        choose_engine(model("llama3.3_70b"), setup(8), Machine(None)),
    ):
        assert choice.candidate == Candidate("ddp") and choice.problem is None
        assert choice.reason.endswith("is not known, so the rehearsal tells whether it fits")


def resolved(facts: Facts, *arguments: str) -> compose.Resolved:
    loaded = compose.load(["model=qwen3_8b", "data=a.jsonl", "training.gradient_checkpointing=full", *arguments])
    return compose.resolve(loaded.config, facts)


def on_gpus(count: int, *arguments: str) -> compose.Resolved:
    return resolved(Facts(num_gpus=count, model=PRESETS["qwen3_8b"], gpu_bytes=H100), *arguments)


def test_resolve_takes_the_choice() -> None:
    found = on_gpus(8)
    assert found.config.engine.name == "zero2" and not found.config.engine.offload_optimizer
    assert found.reasons["engine.name"].startswith("the cheapest that fits")
    assert found.problems == []


def test_resolve_turns_offload_on() -> None:
    engine = on_gpus(1).config.engine
    assert (engine.name, engine.offload_optimizer) == ("zero2", True)


def test_resolve_sees_adapters_and_rows() -> None:
    assert on_gpus(1, "adapter=lora").config.engine.name == "ddp"
    assert on_gpus(1, "adapter=lora", "training.micro_batch_size=64").config.engine.name != "ddp"


def test_resolve_keeps_to_what_the_other_keys_leave() -> None:
    assert on_gpus(8, "engine.shard_size=4").config.engine.name == "fsdp2"
    assert on_gpus(8, "engine.offload_parameters=true").config.engine.name in ("fsdp2", "zero3")
    mine = on_gpus(8, "adapter=lora", "engine.deepspeed={wall_clock_breakdown: true}").config.engine
    assert mine.name == "zero1"
    named = on_gpus(8, "engine.name=ddp")
    assert named.config.engine.name == "ddp" and "engine.name" not in named.reasons


def test_resolve_takes_none_that_a_rule_refuses() -> None:
    """What fits first is zero2, which would keep bfloat16 weights; without DeepSpeed the next one is torch's own."""
    assert on_gpus(8).config.engine.name == "zero2"
    assert on_gpus(8, "model.dtype=float32").config.engine.name == "fsdp2"
    alone = Facts(num_gpus=8, model=PRESETS["qwen3_8b"], gpu_bytes=H100, versions={"torch": "2.13.0"})
    assert resolved(alone).config.engine.name == "fsdp2"


def test_resolve_takes_what_is_refused_when_it_alone_fits_so_that_the_rule_speaks() -> None:
    large = Facts(num_gpus=8, model=PRESETS["llama3.3_70b"], gpu_bytes=H100)
    found = resolved(large, "adapter=lora", "adapter.dora=true")
    assert (found.config.engine.name, found.problems) == ("fsdp2", [])
    assert engine_problems(found.config, large)[0].startswith("adapter.dora=true: it needs the norm of whole weights")


def test_resolve_counts_deepspeeds_buffers_as_the_users_settings_have_them() -> None:
    small = Facts(num_gpus=1, model=PRESETS["smollm2_135m"], gpu_bytes=3 * GIB)
    usual = resolved(small, "data.sequence_length=512", "engine.deepspeed={wall_clock_breakdown: false}")
    assert usual.problems[0].startswith("engine.name=auto: nothing fits")
    found = resolved(small, "data.sequence_length=512", "engine.deepspeed={zero_optimization: {reduce_bucket_size: 10000000}}")
    assert (found.config.engine.name, found.problems) == ("zero2", [])


def test_resolve_refuses_an_offload_that_the_host_has_no_room_for() -> None:
    facts = Facts(num_gpus=8, model=PRESETS["qwen3_8b"], gpu_bytes=H100, host_bytes=64 * GIB)
    assert resolved(facts, "engine=zero2").problems == []
    (problem,) = resolved(facts, "engine=zero2_offload").problems
    assert problem.startswith("engine.offload_optimizer=true: zero2 with optimizer on the host needs ")
    assert problem.endswith(" GiB of host memory for 8 ranks, this machine has 64.0; use more machines or adapter=lora")


def test_resolve_drops_nothing_that_was_asked_for() -> None:
    found = on_gpus(8, "engine.shard_size=4", "engine.offload_optimizer=true").config.engine
    assert (found.offload_optimizer, found.shard_size) == (True, 4)


def test_resolve_without_a_gpu_takes_ddp() -> None:
    found = resolved(Facts(num_gpus=0, model=PRESETS["llama3.3_70b"]))
    assert (found.config.engine.name, found.reasons["engine.name"]) == ("ddp", "no GPU")


def test_resolve_says_when_nothing_fits() -> None:
    small = Facts(num_gpus=1, model=PRESETS["llama3.3_70b"], gpu_bytes=8 * GIB)
    assert resolved(small).problems[0].startswith("engine.name=auto: nothing fits")


@pytest.mark.parametrize(
    ("cards", "gib"),
    [
        (["NVIDIA H100 80GB HBM3"] * 8, 80),
        (["NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"], 40),
        (["Tesla V100-SXM2-32GB"], 32),
        (["NVIDIA H800"], 80),
        (["NVIDIA H200"], 141),
        (["NVIDIA L4"], 24),
        (["NVIDIA GeForce RTX 4090"], 24),
        (["NVIDIA H100 NVL"], 94),
        (["NVIDIA Unheard-of 1"], None),
        (["NVIDIA H800", "NVIDIA Unheard-of 1"], None),
        ([], None),
    ],
)
def test_a_cards_memory_from_its_name(cards: list[str], gib: int | None, tmp_path: Path) -> None:
    for number, name in enumerate(cards):
        folder = tmp_path / f"0000:{number:02x}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 100\n")
    assert gpu_memory_bytes(tmp_path) == (None if gib is None else gib * GIB)


def test_a_jobs_own_limit_is_the_memory_of_the_host(tmp_path: Path) -> None:
    job = tmp_path / "system.slice" / "job_7" / "step_0"
    job.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("0::/system.slice/job_7/step_0\n")
    whole = host_memory_bytes(tmp_path, own)
    assert whole == host_memory_bytes(tmp_path, tmp_path / "none") and whole is not None and whole > 2**30
    (job / "memory.max").write_text("max\n")
    (job.parent / "memory.max").write_text(f"{2**30}\n")
    assert host_memory_bytes(tmp_path, own) == 2**30
