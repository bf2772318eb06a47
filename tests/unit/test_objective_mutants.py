"""Known mistakes of preference training, put into the real code: the comparison with the papers' formulas notices each.

KTO's baseline per micro-batch is caught where micro-batches are, in tests/distributed/test_preference.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.small_store import small_store
from tests.unit import test_objectives as papers
from tests.unit import test_reference as plain
from train.distributed import Dims
from train.evaluate import Evaluator
from train.objectives import build_objective
from train.objectives.pairs import Answers, answers_of
from train.reference_pass import log_probabilities


def differs(name: str) -> bool:
    """Returns whether the loss of a case is not the paper's."""
    case = papers.CASES[name]
    loss, _ = papers.mean_loss(build_objective(case.section, papers.documents(case.roles)), case.tokens, [range(6)])
    return abs(loss - case.paper(case.section, case.tokens)) > 1e-3


@pytest.mark.parametrize("name", ["dpo", "dpo ipo", "dpo hinge", "dpo robust", "simpo", "reward"])
def test_swapped_answers_are_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert not differs(name)
    kind = type(build_objective(papers.CASES[name].section, papers.documents(papers.PAIRED)))
    margins: Any = kind._margins  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "_margins", lambda self, *arguments: -margins(self, *arguments))
    assert differs(name)


def test_swapped_answers_of_orpo_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not differs("orpo")
    orpo = import_module("train.objectives.orpo")
    at = orpo.at
    monkeypatch.setattr(orpo, "at", lambda values, places: at(values, places ^ 1))
    assert differs("orpo")


@pytest.mark.parametrize("name", ["dpo length-normalised", "dpo ipo length-normalised", "dpo nll", "orpo", "simpo"])
def test_missing_length_normalisation_is_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert not differs(name)

    def sums_only(*arguments: Any) -> Answers:
        answers = answers_of(*arguments)
        return Answers(answers.sums, torch.ones_like(answers.lengths))

    monkeypatch.setattr(import_module(f"train.objectives.{papers.CASES[name].section.name}"), "answers_of", sums_only)
    assert differs(name)


def test_a_reference_with_dropout_is_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", [5, 12, 7, 30, 9])
    module = plain.scores().train()
    evaluator = Evaluator(store, Dims(0, 1, 1), torch.device("cpu"), 2, 0)
    expected = log_probabilities(module, evaluator)

    @contextlib.contextmanager
    def as_it_is(module: nn.Module) -> Iterator[None]:
        with torch.no_grad():
            yield

    monkeypatch.setattr("train.reference_pass.inference", as_it_is)
    assert not np.allclose(log_probabilities(module, evaluator), expected, rtol=1e-3)
