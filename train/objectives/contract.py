"""What an objective is: scores into sums, which `step.py` divides by units over the whole global batch.

Legend: N labelled positions of a micro-batch, D documents of a store's part, M measured things (tokens, pairs, examples).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from data_pipelines.collate import Batch
from data_pipelines.index import Store


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the loss: a sum over this micro-batch, to be divided by the count of `unit` in the global batch."""

    name: str
    sum: Tensor
    unit: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What an evaluation counts in one micro-batch.

    Attributes:
        source: `[M]` index into the store's sources, of each measured thing.
        values: `loss` `[M]`, and whatever else is worth a mean; the same names for every batch. `loss` alone is the
            negative log-likelihood of target tokens.
    """

    source: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Documents:
    """What an objective knows of the documents of one part of a store; `Batch.document_ids` index it.

    Attributes:
        role: `[D]` a `data_pipelines.roles.Role`; None when all are plain.
        margin: `[D]` by how much a chosen answer is better; None like `role`.
        reference: `[D]` the reference model's log-probability of the labelled tokens; None where nothing asks for it.
    """

    role: NDArray[np.uint8] | None = None
    margin: NDArray[np.float32] | None = None
    reference: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, store: Store, reference: NDArray[np.float64] | None = None) -> Documents:
        """Returns the columns of `store` that objectives read."""
        return cls(store.document_role, store.document_margin, reference)


class Objective(Protocol):
    """What every objective offers."""

    def units(self, batch: Batch) -> dict[str, int]:
        """Returns how many of each unit the micro-batch holds, `tokens` among them; needs no forward pass."""
        ...

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        """Returns the terms for `scores` `[N]`, log-probabilities of `batch.targets`."""
        ...

    def measure(self, scores: Tensor, batch: Batch) -> Measured:
        """Returns what an evaluation averages, for `scores` `[N]`."""
        ...


@runtime_checkable
class WindowObjective(Protocol):
    """An objective with a statistic of the whole global batch."""

    def window_stats(self, module: nn.Module, batches: Iterable[Batch]) -> None:
        """Takes the statistic in, summed over all ranks, by `train.inference`; called before anything of the window is learned."""
        ...
