"""Engines by name. An engine owns the backward pass, the update and who holds which part of the state."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor, nn

from train.distributed import Context, Dims
from train.scores import Scores
from train.shards import LocalShard, TensorReader


@dataclass(frozen=True, slots=True)
class StepResult:
    """Global gradient norm before clipping, and whether the update was made."""

    grad_norm: float
    applied: bool


class Engine(Protocol):
    """What the step, the loop and checkpoints need from an engine."""

    dims: Dims

    def prepare(self, scores: Scores, optimizer: torch.optim.Optimizer) -> nn.Module:
        """Takes over model and optimizer; returns the module to call."""
        ...

    def micro_batch(self, last: bool) -> AbstractContextManager[object]:
        """Context of one micro-batch's forward and backward; gradients are exchanged in the last one."""
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

    def state(self) -> dict[str, list[LocalShard]]:
        """Returns this rank's part of weights (`model.NAME`) and optimizer state (`optimizer.NAME.KEY`).

        The same names, shapes and blocks at every call after the first update.
        """
        ...

    def load_state(self, reader: TensorReader) -> None:
        """Overwrites weights and optimizer state with this rank's part of what `reader` has."""
        ...


ENGINES = {"ddp": "train.engines.ddp:DdpEngine"}


def build_engine(name: str, context: Context, *, max_grad_norm: float) -> Engine:
    """Returns the engine called `name` in the configuration."""
    module, attribute = ENGINES[name].split(":")
    engine: Engine = getattr(import_module(module), attribute)(context, max_grad_norm=max_grad_norm)
    return engine
