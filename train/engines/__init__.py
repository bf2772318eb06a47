"""Engines by name. An engine owns the backward pass, the update and who holds which part of the state.

Sequence, tensor and expert parallelism will be engines too: what they need is in the contract already (`dims` tells
data-parallel ranks from the world, shards have offsets in every dimension).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor, nn

from configs.schema import EngineSection, TrainingSection
from train.distributed import Context, Dims
from train.scores import Scores
from train.shards import LocalShard, TensorReader

MakeOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class StepResult:
    """Global gradient norm before clipping; whether the update was made; if not, whether the fp16 loss scale was too high.

    After an overflow of fp16 nothing has moved but the scale, and the same batch can be taken again.
    `non_finite`: when nothing was applied, the first parameters whose gradients (this rank's parts) are not finite.
    """

    grad_norm: float
    applied: bool
    overflowed: bool = False
    non_finite: tuple[str, ...] = ()


class Engine(Protocol):
    """What the step, the loop and checkpoints need from an engine.

    Attributes:
        dims: this rank's place.
        optimizer: its groups carry the learning rate; there after `prepare`.
        autocasts: low precision is autocast over fp32 weights; otherwise the engine casts weights itself.
        loads_shards: the model is built empty; each rank reads its part of the weights.
        reads_weights: `load_weights` is called after `prepare`: always with `loads_shards`, and where the weights that are
            updated would otherwise start from ones rounded to the precision of the arithmetic.
        is_sharded: no rank holds the whole model, so that all must take part in whatever calls it.
        weights_device: where a model that is built whole belongs before `prepare`.
    """

    dims: Dims
    optimizer: torch.optim.Optimizer
    autocasts: bool
    loads_shards: bool
    reads_weights: bool
    is_sharded: bool
    weights_device: torch.device

    def construction(self) -> AbstractContextManager[object]:
        """Context in which a model is built empty."""
        ...

    def prepare(self, scores: Scores, make_optimizer: MakeOptimizer) -> nn.Module:
        """Takes over the model, makes its optimizer; returns the module to call."""
        ...

    def load_weights(self, reader: TensorReader) -> None:
        """Fills every weight that `prepare` left empty or rounded, from a reader that knows them by the model's own names."""
        ...

    def micro_batch(self, last: bool) -> AbstractContextManager[object]:
        """Context of one micro-batch's forward and backward; gradients are complete after the last one."""
        ...

    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds the gradients of `loss`, a scalar already scaled for averaging over data-parallel ranks."""
        ...

    def step(self) -> StepResult:
        """Clips, updates and clears gradients; with a norm that is not finite it only clears."""
        ...

    def discard(self) -> None:
        """Clears gradients without an update."""
        ...

    def warm_up(self) -> None:
        """Makes one update that changes nothing, so that all memory is taken; afterwards optimizer state is as new.

        Gradients must be there, and be zero.
        """
        ...

    def state(self) -> dict[str, list[LocalShard]]:
        """Returns this rank's part of weights (`model.NAME`) and optimizer state (`optimizer.NAME.KEY`)."""
        ...

    def load_state(self, reader: TensorReader) -> None:
        """Overwrites trained weights and optimizer state.

        Raises:
            CheckpointError: a tensor is missing or has another shape.
        """
        ...

    def gather(self, name: str) -> Tensor:
        """Returns the whole weight `name` on the CPU; every rank calls it."""
        ...

    def replicas(self) -> dict[str, Tensor]:
        """Returns what other ranks hold too, by key: ranks with the same key hold the same bits. Empty if nothing is."""
        ...

    def direct_calls(self) -> AbstractContextManager[object]:
        """Context in which the model itself may be called, past the prepared module, by all ranks alike."""
        ...


ENGINES = {
    "ddp": "train.engines.ddp:DdpEngine",
    "zero1": "train.engines.deepspeed:DeepSpeedEngine",
    "zero2": "train.engines.deepspeed:DeepSpeedEngine",
    "zero3": "train.engines.deepspeed:DeepSpeedEngine",
    "fsdp2": "train.engines.fsdp2:Fsdp2Engine",
}


def build_engine(section: EngineSection, training: TrainingSection, context: Context) -> Engine:
    """Returns the engine that the configuration names."""
    module, attribute = ENGINES[section.name].split(":")
    engine: Engine = getattr(import_module(module), attribute)(section, training, context)
    return engine
