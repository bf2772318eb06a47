"""Which engine goes with which adapter, precision, offload, device and number of ranks.

The compatibility table (docs/compatibility.md) enumerates these same rules: `python -m configs.compatibility`.
"""

from __future__ import annotations

from collections.abc import Iterator

from configs.deepspeed_rules import deepspeed_problems, deepspeed_unknowns
from configs.facts import Facts, ranks_of
from configs.schema import RunConfig

ZERO = ("zero1", "zero2", "zero3")
SHARDS_WEIGHTS = ("zero3", "fsdp2")
# Checkpoints reach into DeepSpeed's own objects, which another version may have renamed.
DEEPSPEED = ((0, 19, 8), (0, 20, 0))
# The keys of config.json that tell how many experts a layer has.
EXPERT_KEYS = ("n_routed_experts", "num_experts", "num_local_experts")


def engine_problems(config: RunConfig, facts: Facts) -> list[str]:
    """Returns every broken rule of the engine, one sentence each: what was given, what was expected, what to do."""
    return [
        *_processes(config, facts),
        *_backend(config, facts),
        *_installed(config, facts),
        *_offload(config),
        *_shard_size(config, facts),
        *_precision(config, facts),
        *_dora(config),
        *_recompute(config),
        *_router(config, facts),
        *deepspeed_problems(config, facts),
    ]


def engine_unknowns(config: RunConfig, facts: Facts) -> list[str]:
    """Returns the rules that cannot be judged from what is known now, one sentence each: they are checked at start."""
    name, precision = config.engine.name, config.training.precision
    found = []
    if config.engine.shard_size is not None and ranks_of(config, facts) is None:
        found.append("engine.shard_size: that it divides the number of ranks is checked at start")
    if facts.num_gpus and precision == "bf16":
        found.append("training.precision=bf16: that these GPUs have bf16 arithmetic is checked at start")
    if facts.num_gpus and config.training.tf32:
        found.append("training.tf32=true: that these GPUs have TF32 is checked at start")
    if name in ZERO and not facts.versions:
        found.append(f"engine.name={name}: DeepSpeed's version is checked at start")
    if config.model.router_balance and not facts.model:
        found.append("model.router_balance: that the model has experts is checked at start")
    return [*found, *deepspeed_unknowns(config)]


def capability_problems(config: RunConfig, capability: tuple[int, int]) -> list[str]:
    """Returns what a GPU of this CUDA compute capability cannot do, of what is asked: checked at start.

    Ampere (8.0) brought both bf16 and TF32; older GPUs would emulate the one and ignore the other.
    """
    if capability >= (8, 0):
        return []
    name = f"this GPU has compute capability {capability[0]}.{capability[1]}, and 8.0 is needed"
    found = []
    if config.training.precision == "bf16":
        found.append(f"training.precision=bf16: {name} for bf16 arithmetic; expected fp16 or fp32")
    if config.training.tf32:
        found.append(f"training.tf32=true: {name} for TF32; expected false")
    return found


def _processes(config: RunConfig, facts: Facts) -> Iterator[str]:
    processes = config.engine.processes
    if isinstance(processes, int) and processes < 1:
        yield f"engine.processes={processes}: expected auto, or 1 or more"
    elif isinstance(processes, int) and facts.world_size is None and facts.num_gpus and processes > facts.num_gpus:
        yield f"engine.processes={processes}: this machine shows {facts.num_gpus} GPUs; expected at most that"


def _backend(config: RunConfig, facts: Facts) -> Iterator[str]:
    engine = config.engine
    if engine.backend == "nccl" and not facts.num_gpus:
        yield "engine.backend=nccl: this machine shows no GPU; expected auto or gloo"
    if engine.backend == "gloo" and facts.num_gpus and engine.name not in ("auto", "ddp"):
        yield f"engine.backend=gloo: {engine.name} scatters gradients on GPUs, which gloo cannot; expected auto or nccl"


def _installed(config: RunConfig, facts: Facts) -> Iterator[str]:
    if config.engine.name not in ZERO or not facts.versions:
        return
    name, version = config.engine.name, facts.versions.get("deepspeed")
    low, high = (".".join(map(str, edge)) for edge in DEEPSPEED)
    wanted = f'pip install "deepspeed>={low},<{high}", or engine=fsdp2, which needs none'
    if version is None:
        yield f"engine.name={name}: DeepSpeed is not installed; {wanted}"
    elif not DEEPSPEED[0] <= _numbers(version) < DEEPSPEED[1]:
        yield f"engine.name={name}: DeepSpeed {version} is installed, expected {low} to below {high}; {wanted}"


def _numbers(version: str) -> tuple[int, ...]:
    """Returns (0, 19, 8) for 0.19.8, also for 0.19.8+cu128."""
    parts = version.split("+", maxsplit=1)[0].split(".")[:3]
    return tuple(int(part) for part in parts if part.isdigit())


def _offload(config: RunConfig) -> Iterator[str]:
    engine = config.engine
    optimizer, parameters = engine.offload_optimizer, engine.offload_parameters
    if parameters and engine.name not in ("auto", *SHARDS_WEIGHTS):
        other = " (its optimizer alone can go there: engine.offload_optimizer=true)" if engine.name in ZERO else ""
        yield (
            f"engine.offload_parameters=true: {engine.name} keeps whole weights on the device{other}; "
            "expected engine.name=zero3 or fsdp2"
        )
    elif parameters and engine.name == "zero3" and not optimizer:
        yield (
            "engine.offload_parameters=true: zero3 moves weights to host memory only with their optimizer; "
            "expected engine.offload_optimizer=true too (engine=zero3_offload)"
        )
    if optimizer and engine.name == "ddp":
        yield (
            "engine.offload_optimizer=true: ddp keeps the optimizer beside the weights; "
            "expected engine.name=zero1, zero2 or zero3, or fsdp2_offload"
        )
    elif optimizer and engine.name == "fsdp2" and not parameters:
        yield (
            "engine.offload_optimizer=true: fsdp2 offloads weights, gradients and optimizer together; "
            "expected engine.offload_parameters=true too (engine=fsdp2_offload)"
        )


def _shard_size(config: RunConfig, facts: Facts) -> Iterator[str]:
    engine, ranks = config.engine, ranks_of(config, facts)
    size = engine.shard_size
    if size is None:
        return
    if size < 2:
        yield f"engine.shard_size={size}: expected 2 or more; engine=ddp keeps a whole copy on every rank"
    elif engine.name not in ("auto", "fsdp2"):
        yield f"engine.shard_size={size}: only fsdp2 makes groups of ranks; expected engine.name=fsdp2, or null"
    elif ranks is not None and ranks % size:
        fitting = [n for n in range(2, ranks + 1) if ranks % n == 0]
        best = f"expected {' or '.join(map(str, fitting[-3:]))}, or null" if fitting else "expected null"
        yield f"engine.shard_size={size}: does not divide {ranks} rank{'s' if ranks > 1 else ''}; {best}"


def _precision(config: RunConfig, facts: Facts) -> Iterator[str]:
    name, training, dtype = config.engine.name, config.training, config.model.dtype
    if training.precision == "fp16" and name in ZERO and not facts.num_gpus:
        yield (
            f"training.precision=fp16: {name} keeps its weights in fp16, and a CPU has no fp16 arithmetic; "
            "expected fp32 or bf16, or engine.name=ddp or fsdp2"
        )
    if training.precision == "fp16" and dtype == "bfloat16":
        yield "model.dtype=bfloat16: mixes two 16-bit types with training.precision=fp16; expected auto or float32"
    if name in ZERO and training.precision != "fp32" and dtype == "float32":
        kind = {"bf16": "bfloat16", "fp16": "float16"}.get(training.precision, training.precision)
        yield (
            f"model.dtype=float32: {name} with training.precision={training.precision} keeps {kind} weights beside "
            "float32 masters; expected auto, or training.precision=fp32"
        )
    if name in ZERO and training.precision == "fp32" and dtype == "bfloat16":
        yield f"model.dtype=bfloat16: {name} with training.precision=fp32 keeps float32 weights; expected auto or float32"
    if training.tf32 and not facts.num_gpus:
        yield "training.tf32=true: TF32 is arithmetic of GPUs, and this machine shows none; expected false"


def _recompute(config: RunConfig) -> Iterator[str]:
    if config.engine.name == "zero3" and config.training.gradient_checkpointing == "selective":
        yield (
            "training.gradient_checkpointing=selective: zero3 gathers weights in another order when it recomputes, and "
            "kept results would be taken for others; expected full or none, or engine.name=fsdp2"
        )


def _dora(config: RunConfig) -> Iterator[str]:
    if config.adapter.name != "none" and config.adapter.dora and config.engine.name in SHARDS_WEIGHTS:
        yield (
            f"adapter.dora=true: it needs the norm of whole weights, and {config.engine.name} holds parts of them; "
            "expected adapter.dora=false, or engine.name=ddp, zero1 or zero2"
        )


def _router(config: RunConfig, facts: Facts) -> Iterator[str]:
    balance = config.model.router_balance
    if balance and facts.model and not has_experts(facts):
        yield f"model.router_balance={balance:g}: this model has no routed experts; expected 0"


def has_experts(facts: Facts) -> bool:
    """Returns whether the model's layers choose among experts."""
    values = (facts.model.get(key) for key in EXPERT_KEYS)
    return any(isinstance(value, int) and value > 1 for value in values)
