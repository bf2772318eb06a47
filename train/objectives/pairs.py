"""From scores of tokens to log-probabilities of answers: what every preference objective shares.

A pair is two documents of one packing item, CHOSEN and then REJECTED, so that both are in the same micro-batch; of each
only the answer is labelled. Sums over a document are float64: two sums of a thousand tokens that differ by 0.01 would
lose a third of their digits in float32.

Legend: N labelled positions, D documents of the micro-batch (padding included), P pairs in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.collate import Batch
from data_pipelines.roles import Role
from train.objectives.contract import Documents

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answers:
    """Log-probabilities of the documents of a micro-batch under the model in training.

    Attributes:
        sums: `[D]` float64, over labelled tokens; 0 for a document without any.
        lengths: `[D]` float64, number of labelled tokens.
    """

    sums: Tensor
    lengths: Tensor

    @property
    def means(self) -> Tensor:
        """Log-probability per token, `[D]`; 0 for a document without labelled tokens."""
        return self.sums / self.lengths.clamp(min=1)


def answers_of(scores: Tensor, batch: Batch) -> Answers:
    """Returns sums and lengths of `batch`'s documents for `scores` `[N]`; in the graph even where nothing is labelled."""
    zeros = torch.zeros(len(batch.document_ids), dtype=torch.float64, device=scores.device)
    sums = zeros.index_add(0, batch.target_document, scores.double())
    return Answers(sums, zeros.index_add(0, batch.target_document, torch.ones_like(scores, dtype=torch.float64)))


def roles_of(documents: Documents, batch: Batch) -> NDArray[np.uint8]:
    """Returns the role of each document of the micro-batch, `[D]`; padding is plain."""
    roles = np.full(len(batch.document_ids), Role.PLAIN, dtype=np.uint8)
    real = batch.document_ids >= 0
    if documents.role is None and real.any():
        raise RuntimeError("the store has no roles of documents: it was not built for an objective of preferences")
    if documents.role is not None:
        roles[real] = documents.role[batch.document_ids[real]]
    return roles


def chosen_places(documents: Documents, batch: Batch) -> Places:
    """Returns which of the D documents are chosen answers, `[P]`; the one behind each is the rejected answer."""
    roles = roles_of(documents, batch)
    places = np.flatnonzero(roles == Role.CHOSEN)
    followers = roles[np.minimum(places + 1, len(roles) - 1)]
    if (followers != Role.REJECTED).any() or (roles == Role.REJECTED).sum() != len(places):
        raise RuntimeError("a chosen answer has no rejected one behind it: the store was not built for preferences")
    return places


def at(values: Tensor, places: Places) -> Tensor:
    """Returns `values[places]`."""
    return values[torch.from_numpy(places).to(values.device)]


def column(values: NDArray[np.floating] | None, batch: Batch, places: Places, name: str) -> Tensor:
    """Returns a per-document column of the store at `places` of the micro-batch, float64, on its device.

    Args:
        values: `[documents of the part]`; may be None while no place is asked for, as in the rehearsal.
        batch: the micro-batch.
        places: which of its documents.
        name: what the column is, for the error.
    """
    if values is None and len(places):
        raise RuntimeError(f"{name} is missing: it has to be there before the first step")
    found = np.zeros(0) if values is None else values[batch.document_ids[places]].astype(np.float64)
    return torch.from_numpy(found).to(batch.input_ids.device)


def log_ratios(answers: Answers, documents: Documents, batch: Batch, places: Places) -> Tensor:
    """Returns log p(answer) under the model minus that under the reference, at `places`; float64."""
    return at(answers.sums, places) - column(documents.reference, batch, places, "the reference's log-probability")


def wins(margins: Tensor) -> NDArray[np.float64]:
    """Returns 1 where the better answer is ahead, 0 where it is behind; a tie is a coin's throw: before the first step
    the model equals its reference and every margin is 0."""
    return (0.5 + 0.5 * margins.sign()).cpu().numpy()


def total(values: Tensor, scores: Tensor) -> Tensor:
    """Returns the sum of `values` in the type of `scores`."""
    return values.sum().to(scores.dtype)
