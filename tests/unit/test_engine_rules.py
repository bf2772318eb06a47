"""Rules of engines that need another machine than this one, and what is left to the start of the run."""

from __future__ import annotations

import pytest

from configs import compose
from configs.engine_rules import capability_problems, engine_problems, engine_unknowns
from configs.facts import Facts
from configs.schema import RunConfig

DENSE = {"model_type": "llama"}
VERSIONS = {"torch": "2.13.0", "deepspeed": "0.19.8"}


def config_of(arguments: str, facts: Facts) -> RunConfig:
    """The resolved configuration of `key=value ...`."""
    return compose.resolve(compose.load(arguments.split()).config, facts).config


def judged(arguments: str, **facts: object) -> list[str]:
    """What the rules say on a machine with these facts; DeepSpeed is there unless they say otherwise."""
    known = Facts(**{"num_gpus": 8, "model": DENSE, "versions": VERSIONS, **facts})  # type: ignore[arg-type]
    return engine_problems(config_of(arguments, known), known)


@pytest.mark.parametrize(
    ("arguments", "facts", "expected"),
    [
        (
            "engine=zero2 engine.backend=gloo",
            {},
            "engine.backend=gloo: zero2 scatters gradients on GPUs, which gloo cannot; expected auto or nccl",
        ),
        (
            "engine=zero1",
            {"versions": {"torch": "2.13.0"}},
            'engine.name=zero1: DeepSpeed is not installed; pip install "deepspeed>=0.19.8,<0.20.0", or engine=fsdp2, '
            "which needs none",
        ),
        (
            "engine=zero3",
            {"versions": {"deepspeed": "0.18.2+cu128"}},
            "engine.name=zero3: DeepSpeed 0.18.2+cu128 is installed, expected 0.19.8 to below 0.20.0; "
            'pip install "deepspeed>=0.19.8,<0.20.0", or engine=fsdp2, which needs none',
        ),
        ("engine.processes=9", {}, "engine.processes=9: this machine shows 8 GPUs; expected at most that"),
        (
            "engine=fsdp2 engine.shard_size=8",
            {"world_size": 12},
            "engine.shard_size=8: does not divide 12 ranks; expected 4 or 6 or 12, or null",
        ),
    ],
)
def test_a_broken_rule(arguments: str, facts: dict[str, object], expected: str) -> None:
    assert judged(arguments, **facts) == [expected]


@pytest.mark.parametrize(
    "arguments",
    [
        "engine=ddp training.precision=fp16",
        "engine=zero1 training.precision=fp16",
        "engine=zero2_offload adapter=lora adapter.dora=true",
        "engine=zero3_offload training.precision=bf16 training.gradient_checkpointing=full",
        "engine=zero3 engine.offload_optimizer=true",
        "engine=fsdp2_offload training.precision=fp16 training.gradient_checkpointing=selective",
        "engine=hsdp adapter=lora training.tf32=true",
        "engine=fsdp2 engine.offload_optimizer=true engine.offload_parameters=true",
        # Ranks that do not divide the global batch get empty rows.
        "engine=zero3 engine.processes=7 training.global_batch_size=32",
    ],
)
def test_what_is_legal_on_gpus(arguments: str) -> None:
    assert judged(arguments) == []


@pytest.mark.parametrize("engine", ["ddp", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload", "fsdp2", "fsdp2_offload"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_engine_is_legal_on_a_cpu(engine: str, precision: str) -> None:
    assert judged(f"engine={engine} training.precision={precision}", num_gpus=0) == []


def test_a_model_with_experts_may_balance_them() -> None:
    experts = {"model_type": "deepseek_v3", "n_routed_experts": 8}
    assert judged("model.router_balance=1e-4", model=experts) == []


def test_unknown_facts_are_left_to_the_start() -> None:
    nothing = Facts(num_gpus=1)
    arguments = "engine=zero2 training.precision=bf16 training.tf32=true model.router_balance=1e-4"
    config = config_of(arguments, nothing)
    assert engine_problems(config, nothing) == []
    assert [line.split(":")[0] for line in engine_unknowns(config, nothing)] == [
        "training.precision=bf16",
        "training.tf32=true",
        "engine.name=zero2",
        "model.router_balance",
    ]
    assert all(line.endswith("is checked at start") for line in engine_unknowns(config, nothing))
    on_cpu = Facts(num_gpus=0, model=DENSE, versions=VERSIONS)
    assert engine_unknowns(config_of("engine=zero2", on_cpu), on_cpu) == []


def test_ranks_that_no_machine_has_said_are_left_to_the_start() -> None:
    facts = Facts(num_gpus=0, model=DENSE)
    config = compose.load(["engine=fsdp2", "engine.shard_size=3"]).config
    assert engine_problems(config, facts) == []
    assert engine_unknowns(config, facts) == ["engine.shard_size: that it divides the number of ranks is checked at start"]


def test_what_an_older_gpu_cannot_do() -> None:
    config = config_of("training.precision=bf16 training.tf32=true", Facts(num_gpus=1))
    assert capability_problems(config, (8, 0)) == []
    assert capability_problems(config, (7, 0)) == [
        "training.precision=bf16: this GPU has compute capability 7.0, and 8.0 is needed for bf16 arithmetic; expected "
        "fp16 or fp32",
        "training.tf32=true: this GPU has compute capability 7.0, and 8.0 is needed for TF32; expected false",
    ]
