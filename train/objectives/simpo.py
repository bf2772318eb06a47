"""SimPO: the mean log-probability of the better answer must exceed that of the worse one by a margin; no reference.

arXiv 2405.14734, equation 6, for a pair with answers y_w and y_l to x:

    -log s( beta / |y_w| log pi(y_w|x) - beta / |y_l| log pi(y_l|x) - gamma )

gamma is given as gamma_beta_ratio = gamma / beta, the margin in nats per token.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from configs.schema import ObjectiveSection
from data_pipelines.collate import Batch
from train.objectives.contract import Documents, Measured, Term
from train.objectives.pairs import Places, answers_of, at, chosen_places, total, wins


class Simpo:
    """Sum of the pairs' losses; unit: pairs."""

    def __init__(self, section: ObjectiveSection, documents: Documents) -> None:
        self._documents = documents
        self._beta = float(section.beta)
        self._gamma = section.gamma_beta_ratio * self._beta

    def units(self, batch: Batch) -> dict[str, int]:
        """Returns pairs and labelled tokens."""
        return {"pairs": len(chosen_places(self._documents, batch)), "tokens": batch.num_targets}

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        """Returns the one term."""
        margins = self._margins(scores, batch, chosen_places(self._documents, batch))
        return (Term("loss", total(self._losses(margins), scores), "pairs"),)

    def measure(self, scores: Tensor, batch: Batch) -> Measured:
        """Returns loss, accuracy (the chosen answer has the higher mean log-probability) and reward margin of each pair."""
        places = chosen_places(self._documents, batch)
        margins = self._margins(scores, batch, places)
        values = {"loss": self._losses(margins).cpu().numpy(), "accuracy": wins(margins), "margin": margins.cpu().numpy()}
        return Measured(batch.document_source[places], values)

    def _margins(self, scores: Tensor, batch: Batch, places: Places) -> Tensor:
        """Returns the difference of the rewards of each pair, `[P]`, gamma not taken off."""
        means = answers_of(scores, batch).means
        return self._beta * (at(means, places) - at(means, places + 1))

    def _losses(self, margins: Tensor) -> Tensor:
        return -F.logsigmoid(margins - self._gamma)
