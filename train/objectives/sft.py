"""Supervised fine-tuning: negative log-likelihood of the assistant's tokens, each counting the same."""

from __future__ import annotations

from torch import Tensor

from data_pipelines.collate import Batch
from train.objectives.contract import Measured, Term


class Sft:
    """Sum of -log p over labelled tokens; unit: target tokens."""

    def units(self, batch: Batch) -> dict[str, int]:
        return {"tokens": batch.num_targets}

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        return (Term("loss", -scores.sum(), "tokens"),)

    def measure(self, scores: Tensor, batch: Batch) -> Measured:
        source = batch.document_source[batch.target_document.cpu().numpy()]
        return Measured(source, {"loss": -scores.double().cpu().numpy()})
