"""A reward model: the score of the better answer must exceed that of the worse one (Bradley-Terry).

Llama 2 (arXiv 2307.09288), equations 1 and 2, for a pair with rewards r_w and r_l:

    -log s( r_w - r_l - m )

m is the row's own margin times margin_weight, 0 where rows give none. The reward of an answer is the scalar head's value
at the document's last token, the only one that is labelled: here `scores` are rewards, not log-probabilities.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from configs.schema import ObjectiveSection
from data_pipelines.collate import Batch
from train.objectives.contract import Documents, Measured, Term
from train.objectives.pairs import Places, answers_of, at, chosen_places, column, total, wins


class Reward:
    """Sum of the pairs' losses; unit: pairs."""

    def __init__(self, section: ObjectiveSection, documents: Documents) -> None:
        self._documents = documents
        self._weight = section.margin_weight

    def units(self, batch: Batch) -> dict[str, int]:
        """Returns pairs, and labelled positions as tokens."""
        return {"pairs": len(chosen_places(self._documents, batch)), "tokens": batch.num_targets}

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        """Returns the one term, for `scores` `[N]` that are rewards."""
        places = chosen_places(self._documents, batch)
        return (Term("loss", total(self._losses(self._margins(scores, batch, places), batch, places), scores), "pairs"),)

    def measure(self, scores: Tensor, batch: Batch) -> Measured:
        """Returns loss, accuracy (the chosen answer has the higher reward) and difference of rewards of each pair."""
        places = chosen_places(self._documents, batch)
        margins = self._margins(scores, batch, places)
        values = {
            "loss": self._losses(margins, batch, places).cpu().numpy(),
            "accuracy": wins(margins),
            "margin": margins.cpu().numpy(),
        }
        return Measured(batch.document_source[places], values)

    def _margins(self, scores: Tensor, batch: Batch, places: Places) -> Tensor:
        """Returns r_w - r_l of each pair, `[P]`."""
        rewards = answers_of(scores, batch).sums
        return at(rewards, places) - at(rewards, places + 1)

    def _losses(self, margins: Tensor, batch: Batch, places: Places) -> Tensor:
        if self._documents.margin is not None:
            margins = margins - self._weight * column(self._documents.margin, batch, places, "the pairs' margin")
        return -F.logsigmoid(margins)
