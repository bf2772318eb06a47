"""Objectives by name. An objective turns scores into sums; `step.py` divides by units over the whole global batch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from torch import Tensor

from data_pipelines.collate import Batch


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the loss: a sum over this micro-batch, to be divided by the count of `unit` in the global batch."""

    name: str
    sum: Tensor
    unit: str


class Objective(Protocol):
    """What every objective offers."""

    def units(self, batch: Batch) -> dict[str, int]:
        """Returns how many of each unit the micro-batch holds; needs no forward pass."""
        ...

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        """Returns the terms for `scores` `[N]`, log-probabilities of `batch.targets`."""
        ...


OBJECTIVES = {
    "sft": "train.objectives.sft:Sft",
    # The same likelihood; that every token is labelled is decided when data is prepared.
    "cpt": "train.objectives.sft:Sft",
}


def build_objective(name: str) -> Objective:
    """Returns the objective called `name` in the configuration."""
    module, attribute = OBJECTIVES[name].split(":")
    objective: Objective = getattr(import_module(module), attribute)()
    return objective
