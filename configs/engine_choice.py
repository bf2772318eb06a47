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

from configs.memory import Bytes, Memory, Model, Setup, estimate

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
        return (
            f"engine.name=auto: {smallest.title} needs {_gib(total.host * machine.ranks)} GiB of host memory for "
            f"{machine.ranks} {'rank' if machine.ranks == 1 else 'ranks'}, this machine has {_gib(room.host)} to give; "
            "use more machines or adapter=lora"
        )
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
