"""`engine.name: auto`: the cheapest engine that fits, and why.

Cheapness is what a step sends. With P bytes of weights and k micro-batches: ddp 2P (gradients reduced and spread, once);
zero1 2P (gradients once, new weights once); zero2 kP + P (gradients after every micro-batch); fsdp2 and zero3 3kP
(weights gathered for forward and for backward, gradients reduced). fsdp2 goes first of the two: torch alone, fewer
moving parts. Offload adds PCIe traffic and an update on the CPU, so it comes last; a process alone has nobody to share
with and goes there directly. (arXiv 1910.02054, section 7; 2101.06840 for offload.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from configs.deepspeed_keys import settings_of, zero_block
from configs.engine_rules import engine_problems
from configs.facts import Facts
from configs.memory import Bytes, Memory, Model, Setup, ZeroSizes, estimate
from configs.schema import EngineSection, RunConfig

GIB = 2**30
# Of a device's memory, for the CUDA context, NCCL, cuBLAS and what the allocator cannot use.
HEADROOM = 0.08
# Of the host's, for the processes themselves and the page cache that reads data and writes checkpoints.
HOST_HEADROOM = 0.2


@dataclass(frozen=True, slots=True)
class Machine:
    """Memory in bytes of one accelerator and of the host, None when unknown; ranks on one host."""

    accelerator: int | None
    host: int | None = None
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine with what it moves to the host."""

    name: str
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @classmethod
    def of(cls, section: EngineSection) -> Candidate:
        """Returns the one that a configuration names."""
        return cls(section.name, section.offload_optimizer, section.offload_parameters)

    @property
    def title(self) -> str:
        moved = [
            word for word, is_moved in (("optimizer", self.offload_optimizer), ("parameters", self.offload_parameters))
            if is_moved
        ]
        return f"{self.name} with {' and '.join(moved)} on the host" if moved else self.name


DDP = Candidate("ddp")
SHARING = (Candidate("zero1"), Candidate("zero2"), Candidate("fsdp2"), Candidate("zero3"))
OFFLOADING = (
    Candidate("zero2", offload_optimizer=True),
    Candidate("zero3", offload_optimizer=True),
    Candidate("fsdp2", offload_parameters=True),
    Candidate("zero3", offload_optimizer=True, offload_parameters=True),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine taken, a few words why, and a problem when nothing fits (then the smallest one is taken)."""

    candidate: Candidate
    reason: str
    problem: str | None = None


def candidates(ranks: int) -> tuple[Candidate, ...]:
    """Returns every engine to consider, cheapest first."""
    return (DDP, *(SHARING if ranks > 1 else ()), *OFFLOADING)


def asked_for(config: RunConfig, ranks: int) -> list[Candidate]:
    """Returns the engines that do what the other keys of `engine` ask, cheapest first."""
    engine = config.engine
    return [
        candidate
        for candidate in candidates(ranks)
        if candidate.offload_optimizer >= engine.offload_optimizer
        and candidate.offload_parameters >= engine.offload_parameters
        and (engine.shard_size is None or candidate.name == "fsdp2")
        and (engine.deepspeed is None or candidate.name.startswith("zero"))
    ]


def not_refused(config: RunConfig, facts: Facts, asked: Sequence[Candidate]) -> list[Candidate]:
    """Returns those of `asked` that no rule refuses, in their order; all when each is refused.

    Args:
        config: resolved, but for the engine's name.
        facts: of the machine; a rule that needs one that is unknown refuses nothing.
        asked: may be empty.
    """
    broken = [set(engine_problems(_taking(config, candidate), facts)) for candidate in asked]
    # What is wrong under each of them is no reason to take another one.
    common = set.intersection(*broken) if broken else set()
    return [candidate for candidate, problems in zip(asked, broken, strict=True) if problems == common] or list(asked)


def _taking(config: RunConfig, candidate: Candidate) -> RunConfig:
    engine = dataclasses.replace(
        config.engine,
        name=candidate.name,
        offload_optimizer=candidate.offload_optimizer,
        offload_parameters=candidate.offload_parameters,
    )
    return dataclasses.replace(config, engine=engine)


def setup_of(config: RunConfig, ranks: int) -> Setup:
    """Returns how a resolved configuration trains on `ranks` ranks, one row at a time, under ddp."""
    training, engine, dtype = config.training, config.engine, config.model.dtype
    half = dtype == "bfloat16" or (dtype == "auto" and training.precision == "bf16")
    return Setup(
        engine="ddp",
        ranks=ranks,
        precision=training.precision,
        optimizer=config.optimizer.name,
        micro_batch_size=1,
        sequence_length=config.data.sequence_length,
        recompute=training.gradient_checkpointing,
        shard_size=engine.shard_size if engine.shard_size and ranks % engine.shard_size == 0 else None,
        frozen_bytes=2 if half else 4,
        zero=zero_sizes(config),
    )


def zero_sizes(config: RunConfig) -> ZeroSizes:
    """Returns DeepSpeed's sizes as the user's own settings leave them."""
    usual = ZeroSizes(buckets=2 if config.engine.backend != "gloo" else 1)
    own = zero_block(settings_of(config.engine))

    def size(key: str, otherwise: int) -> int:
        # DeepSpeed takes either spelling.
        value = own.get(f"stage3_{key}", own.get(key))
        return int(value) if isinstance(value, (int, float)) else otherwise

    return ZeroSizes(
        bucket=size("reduce_bucket_size", usual.bucket),
        buckets=usual.buckets if own.get("overlap_comm", True) else 1,
        live=size("max_live_parameters", usual.live),
        persistent=size("param_persistence_threshold", usual.persistent),
    )


def choose_engine(
    model: Model | None, setup: Setup, machine: Machine, allowed: Sequence[Candidate] | None = None
) -> Choice:
    """Returns the first of `allowed` (cheapest first; None: all) that fits `machine`.

    Args:
        model: None when its family is unknown.
        setup: with the smallest micro-batch that the run may take; its engine and offload are ignored.
        machine: with an unknown accelerator the first one is taken, and the rehearsal checks it.
        allowed: what the rest of the configuration leaves.
    """
    allowed = candidates(setup.ranks) if allowed is None else allowed
    if not allowed:
        return Choice(DDP, "no engine does what the other keys ask")  # which rules say in full
    first = allowed[0]
    if machine.accelerator is None or model is None:
        what = "the cheapest" if first == DDP else "the cheapest that these keys leave"
        unknown = "memory" if machine.accelerator is None else "this model family's size"
        return Choice(first, f"{what}; {unknown} is not known, so the rehearsal tells whether it fits")
    room = Bytes(int(machine.accelerator * (1 - HEADROOM)), int((machine.host or 0) * (1 - HOST_HEADROOM)))
    tried = [(candidate, estimate(model, _with(setup, candidate))) for candidate in allowed]
    for candidate, memory in tried:
        if _fits(memory, room, machine):
            return Choice(candidate, _reason(tried, candidate, memory, room))
    smallest, memory = min(tried, key=lambda pair: pair[1].total.accelerator)
    return Choice(smallest, "the smallest", _nothing_fits(smallest, memory, room, setup, machine))


def host_problem(model: Model | None, setup: Setup, machine: Machine, candidate: Candidate) -> str | None:
    """Returns why the host cannot hold what an engine with offload puts there; None when it can, or nobody knows."""
    if model is None or machine.host is None:
        return None
    needed = estimate(model, _with(setup, candidate)).total.host * machine.ranks
    if needed <= machine.host:
        return None
    key = "engine.offload_parameters" if candidate.offload_parameters else "engine.offload_optimizer"
    return f"{key}=true: {_too_much(candidate, needed, machine.ranks, machine.host)}"


def _too_much(candidate: Candidate, needed: int, ranks: int, room: int) -> str:
    return (
        f"{candidate.title} needs {_gib(needed)} GiB of host memory for {ranks} {'rank' if ranks == 1 else 'ranks'}, "
        f"this machine has {_gib(room)}; use more machines or adapter=lora"
    )


def _with(setup: Setup, candidate: Candidate) -> Setup:
    return dataclasses.replace(
        setup,
        engine=candidate.name,
        offload_optimizer=candidate.offload_optimizer,
        offload_parameters=candidate.offload_parameters,
    )


def _fits(memory: Memory, room: Bytes, machine: Machine) -> bool:
    host_ok = machine.host is None or memory.total.host * machine.ranks <= room.host
    return memory.total.accelerator <= room.accelerator and host_ok


def _reason(tried: list[tuple[Candidate, Memory]], chosen: Candidate, memory: Memory, room: Bytes) -> str:
    needs = f"{_gib(memory.total.accelerator)} of {_gib(room.accelerator)} GiB"
    place = [candidate for candidate, _ in tried].index(chosen)
    if place == 0:
        return f"the cheapest, and it fits: {needs}"
    before, its = tried[place - 1]
    return f"the cheapest that fits: {needs}; {before.title} needs {_gib(its.total.accelerator)}"


def _nothing_fits(smallest: Candidate, memory: Memory, room: Bytes, setup: Setup, machine: Machine) -> str:
    """Says what the smallest engine needs and what would help."""
    total = memory.total
    if total.accelerator <= room.accelerator:
        return f"engine.name=auto: {_too_much(smallest, total.host * machine.ranks, machine.ranks, room.host)}"
    helps = []
    if memory.activations.accelerator > 0.2 * total.accelerator and setup.recompute != "full":
        helps.append("training.gradient_checkpointing=full")
    if memory.activations.accelerator + memory.logits.accelerator > 0.4 * total.accelerator:
        helps.append("a shorter data.sequence_length")
    if memory.gradients.accelerator + memory.optimizer.accelerator + memory.optimizer.host > memory.parameters.accelerator:
        helps.append("adapter=lora")
    helps.append("more GPUs")
    return (
        f"engine.name=auto: nothing fits; the smallest, {smallest.title}, needs {_gib(total.accelerator)} GiB on each of "
        f"{setup.ranks} {'GPU' if setup.ranks == 1 else 'GPUs'}, which has {_gib(room.accelerator)}; try {', '.join(helps)}, "
        "or engine=NAME to try one all the same"
    )


def _gib(number: int) -> str:
    return f"{number / GIB:.1f}"
