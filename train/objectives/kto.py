"""KTO: learns from answers that are marked good or bad, without pairs, by how people weigh gains and losses.

arXiv 2402.01306, section 4 (its versions number the equations differently). With r = log pi(y|x) / pi_ref(y|x), a good answer's loss is
lambda_D (1 - s(beta (r - z0))), a bad one's lambda_U (1 - s(beta (z0 - r))); the lambdas are desirable_weight and
undesirable_weight.

z0 estimates the divergence from the reference: the mean of log pi(y'|x) / pi_ref(y'|x) over the whole global batch, at
least 0, where y' is the answer to another prompt. Such a mismatched document follows each example in its
packing item. z0 moves no gradient. It is taken once per step over all ranks and micro-batches, so that the loss does not
depend on how the batch is cut up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import ObjectiveSection
from data_pipelines.collate import Batch
from data_pipelines.roles import Role
from train.activity import sign
from train.distributed import sum_over_ranks
from train.inference import inference
from train.objectives.contract import Documents, Measured, Term
from train.objectives.pairs import Places, answers_of, log_ratios, roles_of, total, wins


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of a micro-batch.

    Attributes:
        places: which of its documents they are, `[E]`.
        signs: 1 for a good answer, -1 for a bad one, `[E]` float64.
        weights: `[E]` float64.
    """

    places: Places
    signs: Tensor
    weights: Tensor


class Kto:
    """Sum of the examples' losses; unit: examples."""

    def __init__(self, section: ObjectiveSection, documents: Documents) -> None:
        self._documents = documents
        self._beta = float(section.beta)
        self._weights = section.desirable_weight, section.undesirable_weight
        self._baseline = 0.0

    def units(self, batch: Batch) -> dict[str, int]:
        """Returns examples and their labelled tokens, those of mismatched answers not counted."""
        roles = roles_of(self._documents, batch)
        is_example = (roles == Role.DESIRABLE) | (roles == Role.UNDESIRABLE)
        tokens = is_example[batch.target_document.cpu().numpy()].sum()
        return {"examples": int(is_example.sum()), "tokens": int(tokens)}

    def window_stats(self, module: nn.Module, batches: Iterable[Batch]) -> None:
        """Sets the baseline z0 from the mismatched answers of the whole window, over all ranks."""
        ratio_sum, count = 0.0, 0
        with inference(module):
            for batch in batches:
                sign()  # in an evaluation nothing else tells the watchdog that this goes on
                # Batches without one too: a sharded model must be called equally often on every rank.
                answers = answers_of(module(batch), batch)
                places = np.flatnonzero(roles_of(self._documents, batch) == Role.MISMATCHED)
                ratio_sum += float(log_ratios(answers, self._documents, batch, places).sum())
                count += len(places)
        ratio_sum, total_count = sum_over_ranks([ratio_sum, float(count)])
        self._baseline = max(0.0, ratio_sum / max(1.0, total_count))

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        """Returns the one term."""
        examples = self._examples(batch)
        losses = self._losses(self._ratios(scores, batch, examples), examples)
        return (Term("loss", total(losses, scores), "examples"),)

    def measure(self, scores: Tensor, batch: Batch) -> Measured:
        """Returns loss, accuracy (the reward is on the right side of the baseline) and distance from it, of each example."""
        examples = self._examples(batch)
        ratios = self._ratios(scores, batch, examples)
        margins = self._beta * examples.signs * (ratios - self._baseline)
        values = {
            "loss": self._losses(ratios, examples).cpu().numpy(),
            "accuracy": wins(margins),
            "margin": margins.cpu().numpy(),
        }
        return Measured(batch.document_source[examples.places], values)

    def _examples(self, batch: Batch) -> Examples:
        roles = roles_of(self._documents, batch)
        places = np.flatnonzero((roles == Role.DESIRABLE) | (roles == Role.UNDESIRABLE))
        is_good = roles[places] == Role.DESIRABLE
        signs, weights = np.where(is_good, 1.0, -1.0), np.where(is_good, *self._weights)
        device = batch.input_ids.device
        return Examples(places, torch.from_numpy(signs).to(device), torch.from_numpy(weights).to(device))

    def _ratios(self, scores: Tensor, batch: Batch, examples: Examples) -> Tensor:
        """Returns r of each example, `[E]`."""
        return log_ratios(answers_of(scores, batch), self._documents, batch, examples.places)

    def _losses(self, ratios: Tensor, examples: Examples) -> Tensor:
        value = torch.sigmoid(self._beta * examples.signs * (ratios - self._baseline))
        return examples.weights * (1 - value)
