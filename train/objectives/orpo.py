"""ORPO: the likelihood of the better answer, and its odds against the worse one; no reference.

arXiv 2403.07691. With P(y|x) = exp(1/|y| log pi(y|x)) the geometric mean of an answer's token probabilities (equation 3)
and odds(y|x) = P / (1 - P) (equation 4), a pair's loss is equation 6 with the term of equation 7:

    -log P(y_w|x)  +  lambda * ( -log s( log odds(y_w|x) / odds(y_l|x) ) )

lambda is odds_weight. The likelihood is over the answer's tokens, as in sft; TRL's also learns the prompt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema import ObjectiveSection
from data_pipelines.collate import Batch
from train.objectives.contract import Documents, Measured, Term
from train.objectives.pairs import answers_of, at, chosen_places, total, wins

# P = 1 has infinite odds; a mean log-probability closer to 0 than this is one that float32 cannot tell from 0.
LEAST = -1e-7


class Orpo:
    """Sums of likelihood and of odds ratio; unit: pairs."""

    def __init__(self, section: ObjectiveSection, documents: Documents) -> None:
        self._documents = documents
        self._weight = section.odds_weight

    def units(self, batch: Batch) -> dict[str, int]:
        """Returns pairs and labelled tokens."""
        return {"pairs": len(chosen_places(self._documents, batch)), "tokens": batch.num_targets}

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        """Returns the likelihood of the chosen answers and the odds ratio."""
        likelihood, margins = self._parts(scores, batch)
        return (
            Term("nll", total(likelihood, scores), "pairs"),
            Term("odds_ratio", total(-self._weight * F.logsigmoid(margins), scores), "pairs"),
        )

    def measure(self, scores: Tensor, batch: Batch) -> Measured:
        """Returns loss, accuracy (the chosen answer has the higher odds) and log odds ratio of each pair."""
        likelihood, margins = self._parts(scores, batch)
        values = {
            "loss": (likelihood - self._weight * F.logsigmoid(margins)).cpu().numpy(),
            "accuracy": wins(margins),
            "margin": margins.cpu().numpy(),
        }
        return Measured(batch.document_source[chosen_places(self._documents, batch)], values)

    def _parts(self, scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns -log P of the chosen answer and the log odds ratio of each pair, both `[P]`."""
        places, means = chosen_places(self._documents, batch), answers_of(scores, batch).means
        won, lost = at(means, places), at(means, places + 1)
        return -won, log_odds(won) - log_odds(lost)


def log_odds(log_p: Tensor) -> Tensor:
    """Returns log(P / (1 - P)) for log P, exact for P near 0 and near 1."""
    log_p = log_p.clamp(max=LEAST)
    return log_p - torch.log(-torch.expm1(log_p))
