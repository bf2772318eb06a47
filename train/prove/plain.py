"""What the plain loop minimises: a likelihood (train/prove/reference.py) or a preference, every document alone.

A preference uses nothing of train/objectives: sums of an answer's tokens in fp64, the paper's formula for each pair or
example, its mean over all. The reference of dpo and kto is the model before its first update.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import ObjectiveSection
from configs.schema.objective import LIKELIHOOD, REFERENCED
from data_pipelines.roles import Role
from train.prove import reference
from train.prove.reference import IGNORED, Labelled

# Called with the number of a document around its forward pass.
Watch = Callable[[int], AbstractContextManager[object]]


class Plain(Protocol):
    """A loss over all documents of the sample."""

    def accumulate(self, model: nn.Module, watch: Watch) -> float:
        """Adds the gradients of the loss; returns it."""
        ...

    def evaluate(self, model: nn.Module, watch: Watch) -> float:
        """Returns the loss without dropout; leaves the model in training mode."""
        ...


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The mean over all labels."""

    documents: list[Labelled]

    def accumulate(self, model: nn.Module, watch: Watch) -> float:
        return reference.accumulate(model, self.documents, watch)

    def evaluate(self, model: nn.Module, watch: Watch) -> float:
        return reference.evaluate_plainly(model, self.documents, watch)


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one document: the sum of its labels' log-probabilities, their number, the reference's sum."""

    total: Tensor
    count: int
    reference: float

    @property
    def ratio(self) -> Tensor:
        """log pi(y|x) / pi_ref(y|x)."""
        return self.total - self.reference

    @property
    def mean(self) -> Tensor:
        """log pi(y|x) / |y|."""
        return self.total / self.count


@dataclass(slots=True)
class Preference:
    """The mean over pairs, or over kto's examples: two documents each, one after the other.

    Attributes:
        roles: of the documents.
        references: the log-probability of each under the reference; zeros where nothing asks for it.
    """

    section: ObjectiveSection
    documents: list[Labelled]
    roles: list[int]
    references: list[float] = field(default_factory=list)

    def accumulate(self, model: nn.Module, watch: Watch) -> float:
        numbers = range(0, len(self.documents), 2)
        baseline, total = self._baseline(model, watch), 0.0
        for number in numbers:
            loss = self._loss(model, number, baseline, watch) / len(numbers)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    @torch.no_grad()
    def evaluate(self, model: nn.Module, watch: Watch) -> float:
        numbers = range(0, len(self.documents), 2)
        model.eval()
        baseline = self._baseline(model, watch)
        total = sum(self._loss(model, number, baseline, watch).item() for number in numbers)
        model.train()
        return total / len(numbers)

    @torch.no_grad()
    def look_at(self, model: nn.Module, watch: Watch) -> None:
        """Takes `model` for the reference."""
        self.references = [0.0] * len(self.documents)
        self.references = [self._answer(model, number, watch).total.item() for number in range(len(self.documents))]

    def _answer(self, model: nn.Module, number: int, watch: Watch) -> Answer:
        document = self.documents[number]
        device = next(model.parameters()).device
        ids, labels = torch.tensor(document.ids, device=device), torch.tensor(document.labels[1:], device=device)
        with watch(number):
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        learned = labels != IGNORED
        scores = F.log_softmax(logits[learned].float(), dim=-1).gather(1, labels[learned][:, None])
        return Answer(scores.double().sum(), int(learned.sum()), self.references[number])

    @torch.no_grad()
    def _baseline(self, model: nn.Module, watch: Watch) -> float:
        """kto's z0: the mean log ratio of the mismatched answers, at least 0 (arXiv 2402.01306, section 4)."""
        numbers = [number for number, role in enumerate(self.roles) if role == Role.MISMATCHED]
        ratios = [self._answer(model, number, watch).ratio.item() for number in numbers]
        return max(0.0, sum(ratios) / max(1, len(ratios)))

    def _loss(self, model: nn.Module, number: int, baseline: float, watch: Watch) -> Tensor:
        first = self._answer(model, number, watch)
        if self.section.name == "kto":
            return example_loss(self.section, first, self.roles[number] == Role.DESIRABLE, baseline)
        return pair_loss(self.section, first, self._answer(model, number + 1, watch))


def example_loss(section: ObjectiveSection, answer: Answer, is_good: bool, baseline: float) -> Tensor:
    """Returns kto's loss of one answer (arXiv 2402.01306, section 4)."""
    distance = float(section.beta) * (answer.ratio - baseline)
    if is_good:
        return section.desirable_weight * (1 - torch.sigmoid(distance))
    return section.undesirable_weight * (1 - torch.sigmoid(-distance))


def pair_loss(section: ObjectiveSection, won: Answer, lost: Answer) -> Tensor:
    """Returns the loss of a pair: dpo and its kin, orpo (arXiv 2403.07691, 6 and 7), simpo (2405.14734, 6)."""
    if section.name == "simpo":
        beta = float(section.beta)
        return F.softplus(section.gamma_beta_ratio * beta - beta * (won.mean - lost.mean))
    if section.name == "orpo":
        odds = [answer.mean - torch.log1p(-torch.exp(answer.mean)) for answer in (won, lost)]
        return section.odds_weight * F.softplus(odds[1] - odds[0]) - won.mean
    if section.length_normalised:
        margin = won.ratio / won.count - lost.ratio / lost.count
    else:
        margin = won.ratio - lost.ratio
    return dpo_loss(section, margin) - section.nll_weight * won.mean


def dpo_loss(section: ObjectiveSection, margin: Tensor) -> Tensor:
    """Returns the loss for the difference of log ratios: DPO (2305.18290, 7), cDPO, rDPO (2403.00409), IPO (2310.12036, 17), hinge."""
    beta, flipped = float(section.beta), section.label_smoothing
    right, wrong = F.softplus(-beta * margin), F.softplus(beta * margin)
    if section.loss == "ipo":
        return (margin - 0.5 / beta).square()
    if section.loss == "hinge":
        return F.relu(1 - beta * margin)
    if section.loss == "robust":
        return ((1 - flipped) * right - flipped * wrong) / (1 - 2 * flipped)
    return (1 - flipped) * right + flipped * wrong


def make_plain(section: ObjectiveSection, store: Path, model: nn.Module, watch: Watch) -> Plain:
    """Returns the loss of an objective over the documents of one part of a store; `model` has not moved yet."""
    documents = reference.read_labelled(store)
    if section.name in LIKELIHOOD:
        return Likelihood(documents)
    loss = Preference(section, documents, np.load(store / "document_role.npy").tolist(), [0.0] * len(documents))
    if section.name in REFERENCED:
        loss.look_at(model, watch)
    return loss
