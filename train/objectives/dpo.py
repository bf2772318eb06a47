"""Direct preference optimisation: the better answer gains on the worse one, measured against a reference model.

With pi the model, pi_ref the reference, y_w and y_l the chosen and the rejected answer to x, log-probabilities summed
over an answer's tokens, and

    h = log pi(y_w|x) / pi_ref(y_w|x) - log pi(y_l|x) / pi_ref(y_l|x)

a pair's loss is, by objective.loss:

    sigmoid  -log s(beta h)                                         DPO, arXiv 2305.18290, equation 7
             -(1 - e) log s(beta h) - e log s(-beta h)              conservative: e = label_smoothing (cDPO, equation 3 of
                                                                    E. Mitchell's note of 2023, ericmitchell.ai/cdpo.pdf)
    robust   (-(1 - e) log s(beta h) + e log s(-beta h)) / (1 - 2e) rDPO, arXiv 2403.00409, section 3.1
    ipo      (h - 1 / (2 beta))^2                                   IPO, arXiv 2310.12036, equation 17; beta is its tau
    hinge    max(0, 1 - beta h)                                     SLiC-HF's calibration, arXiv 2305.10425, section 2, on h

length_normalised divides each log ratio by the answer's tokens before the difference (Tulu 3, arXiv 2411.15124).
nll_weight adds that much of -log pi(y_w|x) / |y_w| (the DPO+NLL loss of Iterative RPO, arXiv 2404.19733).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema import ObjectiveSection
from data_pipelines.collate import Batch
from train.objectives.contract import Documents, Measured, Term
from train.objectives.pairs import Answers, Places, answers_of, at, chosen_places, log_ratios, total, wins


class Dpo:
    """Sum of the pairs' losses; unit: pairs."""

    def __init__(self, section: ObjectiveSection, documents: Documents) -> None:
        self._section = section
        self._documents = documents
        self._beta = float(section.beta)

    def units(self, batch: Batch) -> dict[str, int]:
        """Returns pairs and labelled tokens."""
        return {"pairs": len(chosen_places(self._documents, batch)), "tokens": batch.num_targets}

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        """Returns the preference term and, where it is asked for, the chosen answers' likelihood."""
        places, answers = chosen_places(self._documents, batch), answers_of(scores, batch)
        terms = [Term("preference", total(self._losses(self._margins(answers, batch, places)), scores), "pairs")]
        if self._section.nll_weight:
            terms.append(Term("nll", total(self._likelihood(answers, places), scores), "pairs"))
        return tuple(terms)

    def measure(self, scores: Tensor, batch: Batch) -> Measured:
        """Returns loss, accuracy (the chosen answer's reward is higher) and reward margin of each pair."""
        places, answers = chosen_places(self._documents, batch), answers_of(scores, batch)
        margins = self._margins(answers, batch, places)
        losses = self._losses(margins) + (self._likelihood(answers, places) if self._section.nll_weight else 0.0)
        return Measured(
            batch.document_source[places],
            {
                "loss": losses.cpu().numpy(),
                "accuracy": wins(margins),
                "margin": (self._beta * margins).cpu().numpy(),
            },
        )

    def _margins(self, answers: Answers, batch: Batch, places: Places) -> Tensor:
        """Returns h of each pair, `[P]`."""
        won, lost = (log_ratios(answers, self._documents, batch, side) for side in (places, places + 1))
        if self._section.length_normalised:
            won, lost = won / at(answers.lengths, places), lost / at(answers.lengths, places + 1)
        return won - lost

    def _likelihood(self, answers: Answers, places: Places) -> Tensor:
        return -self._section.nll_weight * at(answers.means, places)

    def _losses(self, margins: Tensor) -> Tensor:
        return pair_losses(margins, self._beta, self._section.loss, self._section.label_smoothing)


def pair_losses(margins: Tensor, beta: float, loss: str, label_smoothing: float) -> Tensor:
    """Returns the loss of each pair for its h `[P]`; see the formulas above."""
    if loss == "ipo":
        return (margins - 1 / (2 * beta)) ** 2
    if loss == "hinge":
        return torch.relu(1 - beta * margins)
    right, wrong = -F.logsigmoid(beta * margins), -F.logsigmoid(-beta * margins)
    if loss == "robust":
        return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)
    return (1 - label_smoothing) * right + label_smoothing * wrong
