"""Preference objectives against their papers' formulas, written here in plain float64 Python, values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.compose import attempt, default_lr, resolve
from configs.facts import Facts
from configs.schema import ObjectiveSection
from configs.schema.objective import BETA, PREFERENCE, READERS
from data_pipelines.collate import Batch
from data_pipelines.roles import Role
from train.objectives import Documents, Objective, WindowObjective, build_objective
from train.objectives.orpo import log_odds
from train.rehearsal import worst_batch

BOUND = 1e-6
# Labelled tokens of each answer, in turn chosen and rejected, or an example and its mismatched one: all lengths differ.
LENGTHS = (3, 5, 7, 2, 1, 4)
REFERENCE = np.array([-2.5, -6.0, -9.0, -1.75, -0.5, -4.5])
PAIRED = (Role.CHOSEN, Role.REJECTED) * 3
MARKED = (Role.DESIRABLE, Role.MISMATCHED, Role.UNDESIRABLE, Role.MISMATCHED, Role.DESIRABLE, Role.MISMATCHED)
MARGIN = np.array([0.5, 0, 1.0, 0, 0, 0], dtype=np.float32)
PADDING = -1

Tokens = Sequence[Sequence[float]]


def documents(roles: Sequence[Role]) -> Documents:
    return Documents(np.array(roles, dtype=np.uint8), MARGIN, REFERENCE)


def batch_of(ids: Sequence[int]) -> Batch:
    """Returns a micro-batch of documents `ids` of the part, -1 for padding; as much of it as objectives look at."""
    lengths = [LENGTHS[number] if number >= 0 else 0 for number in ids]
    owners = torch.arange(len(ids)).repeat_interleave(torch.tensor(lengths, dtype=torch.int64))
    empty = torch.zeros(1, 1, dtype=torch.int64)
    return Batch(
        input_ids=empty,
        labels=empty,
        position_ids=empty,
        cu_seqlens=torch.zeros(1, dtype=torch.int32),
        max_seqlen=1,
        target_index=owners,
        targets=owners,
        target_document=owners,
        row_ids=np.array([0]),
        document_ids=np.array(ids, dtype=np.int64),
        document_source=np.array([number % 2 if number >= 0 else -1 for number in ids], dtype=np.int64),
    )


def some_tokens(seed: int = 0) -> list[list[float]]:
    """Returns log-probabilities of the labelled tokens of all documents."""
    rng = np.random.default_rng(seed)
    return [list(-rng.exponential(1.2, length)) for length in LENGTHS]


def flat(tokens: Tokens, ids: Sequence[int] = range(len(LENGTHS))) -> Tensor:
    values = [value for number in ids if number >= 0 for value in tokens[number]]
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def section_of(name: str, **values: Any) -> ObjectiveSection:
    made = ObjectiveSection(name=name, **values)
    assert made.problems() == []
    if made.beta == "auto" and name in BETA:
        made.beta = BETA[name]
    return made


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# What the papers say, for all three pairs or examples; the result is the mean.


def ratio(tokens: Tokens, document: int, *, mean: bool = False) -> float:
    """log pi(y|x) / pi_ref(y|x)"""
    return (sum(tokens[document]) - REFERENCE[document]) / (len(tokens[document]) if mean else 1)


def dpo(section: ObjectiveSection, tokens: Tokens) -> float:
    beta, e = float(section.beta), section.label_smoothing
    total = 0.0
    for w, o in ((0, 1), (2, 3), (4, 5)):
        h = ratio(tokens, w, mean=section.length_normalised) - ratio(tokens, o, mean=section.length_normalised)
        if section.loss == "sigmoid":
            total += -(1 - e) * log_sigmoid(beta * h) - e * log_sigmoid(-beta * h)
        elif section.loss == "robust":
            total += (-(1 - e) * log_sigmoid(beta * h) + e * log_sigmoid(-beta * h)) / (1 - 2 * e)
        elif section.loss == "ipo":
            total += (h - 1 / (2 * beta)) ** 2
        else:
            total += max(0.0, 1 - beta * h)
        total += section.nll_weight * -sum(tokens[w]) / len(tokens[w])
    return total / 3


def kto(section: ObjectiveSection, tokens: Tokens) -> float:
    z0 = max(0.0, sum(KTO_START_RATIOS) / 3)
    beta, total = float(section.beta), 0.0
    for document, good in ((0, True), (2, False), (4, True)):
        r = ratio(tokens, document)
        if good:
            total += section.desirable_weight * (1 - sigmoid(beta * (r - z0)))
        else:
            total += section.undesirable_weight * (1 - sigmoid(beta * (z0 - r)))
    return total / 3


def orpo(section: ObjectiveSection, tokens: Tokens) -> float:
    total = 0.0
    for w, o in ((0, 1), (2, 3), (4, 5)):
        p_w, p_l = (math.exp(sum(tokens[d]) / len(tokens[d])) for d in (w, o))
        odds_ratio = (p_w / (1 - p_w)) / (p_l / (1 - p_l))
        total += -math.log(p_w) - section.odds_weight * log_sigmoid(math.log(odds_ratio))
    return total / 3


def simpo(section: ObjectiveSection, tokens: Tokens) -> float:
    beta, total = float(section.beta), 0.0
    gamma = section.gamma_beta_ratio * beta
    for w, o in ((0, 1), (2, 3), (4, 5)):
        total -= log_sigmoid(
            beta / len(tokens[w]) * sum(tokens[w]) - beta / len(tokens[o]) * sum(tokens[o]) - gamma
        )
    return total / 3


def reward(section: ObjectiveSection, tokens: Tokens) -> float:
    """Here the "tokens" of a document add up to its reward."""
    total = 0.0
    for w, o in ((0, 1), (2, 3), (4, 5)):
        total -= log_sigmoid(sum(tokens[w]) - sum(tokens[o]) - section.margin_weight * float(MARGIN[w]))
    return total / 3


# z0 has no gradient: it stays that of the unmoved tokens when a token is moved. Positive here.
KTO_START = [[value * 0.6 for value in document] for document in some_tokens()]
KTO_START_RATIOS = [ratio(KTO_START, document) for document in (1, 3, 5)]


@dataclass(frozen=True)
class Case:
    section: ObjectiveSection
    paper: Callable[[ObjectiveSection, Tokens], float]

    @property
    def roles(self) -> Sequence[Role]:
        return MARKED if self.section.name == "kto" else PAIRED

    @property
    def tokens(self) -> list[list[float]]:
        return KTO_START if self.section.name == "kto" else some_tokens()


CASES = {
    "dpo": Case(section_of("dpo"), dpo),
    "dpo beta": Case(section_of("dpo", beta=0.7), dpo),
    "dpo conservative": Case(section_of("dpo", label_smoothing=0.2), dpo),
    "dpo robust": Case(section_of("dpo", loss="robust", label_smoothing=0.1), dpo),
    "dpo ipo": Case(section_of("dpo", loss="ipo"), dpo),
    "dpo hinge": Case(section_of("dpo", loss="hinge", beta=0.3), dpo),
    "dpo length-normalised": Case(section_of("dpo", length_normalised=True, beta=5.0), dpo),
    "dpo ipo length-normalised": Case(section_of("dpo", loss="ipo", length_normalised=True), dpo),
    "dpo robust length-normalised with nll": Case(
        section_of("dpo", loss="robust", label_smoothing=0.3, length_normalised=True, nll_weight=0.5), dpo
    ),
    "dpo nll": Case(section_of("dpo", nll_weight=1.0), dpo),
    "kto": Case(section_of("kto"), kto),
    "kto weighted": Case(section_of("kto", beta=0.5, desirable_weight=1.3, undesirable_weight=0.7), kto),
    "orpo": Case(section_of("orpo"), orpo),
    "orpo weighted": Case(section_of("orpo", odds_weight=1.5), orpo),
    "simpo": Case(section_of("simpo"), simpo),
    "simpo margin": Case(section_of("simpo", beta=2.5, gamma_beta_ratio=0.3), simpo),
    "reward": Case(section_of("reward"), reward),
    "reward without margin": Case(section_of("reward", margin_weight=0.0), reward),
}


class Given(nn.Module):
    """A model that gives the log-probabilities it was given."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, batch: Batch) -> Tensor:
        return flat(self.tokens, batch.document_ids.tolist())


def mean_loss(objective: Objective, tokens: Tokens, parts: Sequence[Sequence[int]]) -> tuple[float, Tensor]:
    """Returns loss and gradient of a global batch cut into micro-batches `parts`, the way a step adds them up."""
    batches = [batch_of(part) for part in parts]
    if isinstance(objective, WindowObjective):
        objective.window_stats(Given(tokens), batches)
    units: dict[str, int] = {}
    for batch in batches:
        for unit, count in objective.units(batch).items():
            units[unit] = units.get(unit, 0) + count
    scores = flat(tokens)
    begins = np.cumsum([0, *LENGTHS])
    loss = torch.zeros((), dtype=torch.float64)
    for part, batch in zip(parts, batches, strict=True):
        own = torch.cat([scores[begins[d] : begins[d + 1]] for d in part if d >= 0] or [scores[:0]])
        for term in objective.loss(own, batch):
            loss = loss + term.sum / units[term.unit]
    (gradient,) = torch.autograd.grad(loss, scores)
    return loss.item(), gradient


def moved(paper: Callable[[Tokens], float], tokens: list[list[float]]) -> Tensor:
    """Returns the paper's derivative by each token, by central differences."""
    step, found = 1e-5, []
    for document in range(len(tokens)):
        for place in range(len(tokens[document])):
            values = []
            for sign in (1, -1):
                other = [list(row) for row in tokens]
                other[document][place] += sign * step
                values.append(paper(other))
            found.append((values[0] - values[1]) / (2 * step))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_the_papers(name: str) -> None:
    case = CASES[name]
    objective = build_objective(case.section, documents(case.roles))
    expected = case.paper(case.section, case.tokens)
    gradient = moved(lambda tokens: case.paper(case.section, tokens), case.tokens)
    # Whole, one item at a time, and with padding and empty micro-batches between.
    for parts in ([range(6)], [[0, 1], [2, 3], [4, 5]], [[PADDING], [2, 3, PADDING, 4, 5, PADDING], [0, 1, PADDING]]):
        loss, found = mean_loss(objective, case.tokens, parts)
        assert loss == pytest.approx(expected, abs=BOUND)
        assert torch.allclose(found, gradient, atol=BOUND)


@pytest.mark.parametrize("name", CASES)
def test_an_evaluation_adds_up_to_the_loss(name: str) -> None:
    case = CASES[name]
    objective = build_objective(case.section, documents(case.roles))
    loss, _ = mean_loss(objective, case.tokens, [range(6)])
    measured = objective.measure(flat(case.tokens).detach(), batch_of(range(6)))
    assert measured.values["loss"].mean() == pytest.approx(loss, abs=BOUND)
    assert measured.source.tolist() == [0, 0, 0] and {len(v) for v in measured.values.values()} == {3}
    assert set(measured.values) == {"loss", "accuracy", "margin"}
    assert (measured.values["accuracy"] == (measured.values["margin"] > 0)).all()


def test_numbers_worked_out_by_hand() -> None:
    """One pair, one token each: log-probabilities -1 and -2, the reference's -1.5 and -1.5, so h = 1."""
    two = Documents(np.array([1, 2], np.uint8), np.array([0.5, 0], np.float32), np.array([-1.5, -1.5]))

    def loss(name: str, **values: Any) -> float:
        owners = torch.tensor([0, 1])
        batch = batch_of([0, 1])
        batch.target_document = batch.targets = owners
        terms = build_objective(section_of(name, **values), two).loss(torch.tensor([-1.0, -2.0]), batch)
        return sum(term.sum.item() for term in terms)

    assert loss("dpo") == pytest.approx(math.log(1 + math.exp(-0.1)), rel=1e-6)  # 0.6443966600735709
    assert loss("dpo") == pytest.approx(0.6443966600735709, rel=1e-6)
    assert loss("dpo", loss="ipo", beta=0.25) == pytest.approx(1.0)  # (1 - 2)^2
    assert loss("dpo", loss="hinge", beta=0.25) == pytest.approx(0.75)
    assert loss("dpo", nll_weight=2.0) == pytest.approx(2.6443966600735709, rel=1e-6)
    assert loss("simpo", beta=2.0, gamma_beta_ratio=1.0) == pytest.approx(math.log(2))  # 2 x 1 - 2 = 0
    assert loss("reward", margin_weight=2.0) == pytest.approx(math.log(2))  # 1 - 2 x 0.5 = 0
    # odds e^-1/(1-e^-1) = 1/(e-1) and 1/(e^2-1): their ratio is e+1.
    assert loss("orpo", odds_weight=1.0) == pytest.approx(1 + math.log(1 + 1 / (math.e + 1)), rel=1e-6)


def test_kto_by_hand() -> None:
    """A good and a bad answer with r = 2 and r = 1; the mismatched ones are ahead of the reference by 3 and -1: z0 = 1."""
    four = Documents(np.array([3, 5, 4, 5], np.uint8), np.zeros(4, np.float32), np.array([-3.0, -4.0, -2.0, -1.0]))
    objective = build_objective(section_of("kto", beta=1.0), four)
    batch = batch_of([0, 1, 2, 3])
    batch.target_document = batch.targets = torch.arange(4)
    scores = torch.tensor([-1.0, -1.0, -1.0, -2.0])
    assert isinstance(objective, WindowObjective)

    class Fixed(nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            return scores

    objective.window_stats(Fixed(), [batch])
    (term,) = objective.loss(scores, batch)
    assert term.sum.item() == pytest.approx((1 - sigmoid(1.0)) + 0.5, rel=1e-6)
    assert objective.units(batch) == {"examples": 2, "tokens": 2}


def test_the_baseline_is_never_negative_and_has_no_gradient() -> None:
    objective = build_objective(section_of("kto"), documents(MARKED))
    far = [[value * 3 for value in row] for row in some_tokens()]
    assert sum(ratio(far, document) for document in (1, 3, 5)) < 0
    loss, gradient = mean_loss(objective, far, [range(6)])
    expected = [1 - sigmoid(0.1 * sign * ratio(far, document)) for document, sign in ((0, 1), (2, -1), (4, 1))]
    assert loss == pytest.approx(sum(expected) / 3, abs=BOUND)
    begins = np.cumsum([0, *LENGTHS])
    for mismatched in (1, 3, 5):
        assert not gradient[begins[mismatched] : begins[mismatched + 1]].any()


@pytest.mark.parametrize("name", PREFERENCE)
@pytest.mark.parametrize("rows", ["rehearsal", "empty"])
def test_rows_without_answers_give_zeros_that_stay_in_the_graph(name: str, rows: str) -> None:
    objective = build_objective(section_of(name), Documents())
    batch = worst_batch(2, 8, 50, torch.device("cpu")) if rows == "rehearsal" else batch_of([PADDING, PADDING])
    scores = torch.full((batch.num_targets,), -1.0, requires_grad=True)
    terms = objective.loss(scores, batch)
    loss = torch.stack([term.sum for term in terms]).sum()
    assert loss.item() == 0 and loss.dtype == torch.float32
    loss.backward()
    assert scores.grad is not None and not scores.grad.any()
    assert all(count == 0 for unit, count in objective.units(batch).items() if unit != "tokens")
    assert all(len(values) == 0 for values in objective.measure(scores.detach(), batch).values.values())


def test_ties_are_a_coins_throw() -> None:
    """Before the first step the model is its own reference."""
    tokens = some_tokens()
    same = Documents(np.array(PAIRED, np.uint8), MARGIN, np.array([sum(row) for row in tokens]))
    measured = build_objective(section_of("dpo"), same).measure(flat(tokens).detach(), batch_of(range(6)))
    assert measured.values["accuracy"].tolist() == [0.5, 0.5, 0.5]
    assert measured.values["loss"] == pytest.approx(np.full(3, math.log(2)))


def test_log_odds_near_both_ends() -> None:
    values = torch.tensor([-1e-3, -1e-6, -50.0], dtype=torch.float64)
    expected = [math.log(math.exp(x) / -math.expm1(x)) for x in values.tolist()]
    assert log_odds(values).tolist() == pytest.approx(expected, rel=1e-9)
    assert torch.isfinite(log_odds(torch.zeros(1, dtype=torch.float64))).all()


def test_a_store_without_pairs_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no rejected one behind it"):
        build_objective(section_of("simpo"), documents((Role.CHOSEN,) * 6)).units(batch_of(range(6)))
    with pytest.raises(RuntimeError, match="has no roles"):
        build_objective(section_of("simpo"), Documents()).units(batch_of(range(6)))
    with pytest.raises(RuntimeError, match="reference's log-probability is missing"):
        roles = np.array(PAIRED, np.uint8)
        build_objective(section_of("dpo"), Documents(roles)).loss(flat(some_tokens()), batch_of(range(6)))


# The section


CHANGED = {
    "beta": 0.2,
    "loss": "ipo",
    "label_smoothing": 0.1,
    "length_normalised": "true",
    "nll_weight": 1.0,
    "reference": "/models/other",
    "desirable_weight": 1.5,
    "undesirable_weight": 1.5,
    "odds_weight": 0.3,
    "gamma_beta_ratio": 0.3,
    "margin_weight": 0.5,
}


@pytest.mark.parametrize("key", READERS)
def test_a_key_that_nobody_reads_is_refused(key: str) -> None:
    assert set(CHANGED) == set(READERS)
    for name in ("sft", "cpt", *PREFERENCE):
        found = attempt([f"objective.name={name}", f"objective.{key}={CHANGED[key]}"]).problems
        if name in READERS[key]:
            assert found == []
        else:
            (line,) = found
            assert line.startswith(f"objective.{key}={CHANGED[key]}: objective={name} does not read it; {READERS[key][0]}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("objective.beta=0", "objective.beta=0.0: expected auto, or more than 0"),
        ("objective.label_smoothing=0.5", "objective.label_smoothing=0.5: expected 0 <= label_smoothing < 0.5"),
        (
            "objective.loss=hinge objective.label_smoothing=0.1",
            "objective.label_smoothing=0.1: objective.loss=hinge does not read it; sigmoid and robust do. Leave it out",
        ),
        (
            "objective.loss=robust",
            "objective.loss=robust: expected objective.label_smoothing, the share of pairs the wrong way round; without it "
            "it is sigmoid",
        ),
        ("objective.nll_weight=-1", "objective.nll_weight=-1.0: expected 0 or more"),
        ("objective.reference=", "objective.reference: empty; expected start, or a model folder"),
    ],
)
def test_values_that_make_no_sense(arguments: str, expected: str) -> None:
    assert attempt(["objective=dpo", *arguments.split()]).problems == [expected]


def test_autos() -> None:
    rates = {"dpo": (5e-7, 5e-6), "orpo": (5e-6, 5e-5), "reward": (1e-5, 1e-4), "sft": (1e-5, 1e-4)}
    for name, (full, lora) in rates.items():
        assert (default_lr(name, lora=False), default_lr(name, lora=True)) == (full, lora)
    resolved = resolve(attempt(["objective=simpo", "adapter=lora"]).config, Facts(num_gpus=0))
    assert (resolved.config.objective.beta, resolved.config.optimizer.lr) == (2.0, 5e-6)
    assert resolved.config.training.duration == "1 epochs"
    assert resolved.reasons["optimizer.lr"] == "default for simpo, lora"
    given = resolve(attempt(["objective=dpo", "objective.beta=0.3"]).config, Facts(num_gpus=0))
    assert given.config.objective.beta == 0.3 and "objective.beta" not in given.reasons
