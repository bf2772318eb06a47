"""Weights that give no number are blamed, and not a kernel or the data; long work shows the watchdog that it gets on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from configs.errors import RunFailed
from data_pipelines.collate import Batch
from tests.unit.test_rehearsal import LENGTH, batch, small_scores
from train.activity import CURRENT
from train.export_weights import plan_weights, write_weights
from train.guards import check_reference, find_non_finite_rows
from train.scores import Scores


@pytest.fixture
def scores() -> Scores:
    return small_scores()


class Rows:
    """A store of rows of one document each, all tokens alike."""

    sequence_length = LENGTH
    num_rows = 4
    ids = np.repeat(np.arange(num_rows), LENGTH)
    mask = np.tile(np.arange(LENGTH) > 0, num_rows)
    row_offsets = np.arange(num_rows + 1)
    document_offsets = row_offsets * LENGTH
    document_targets = np.full(num_rows, LENGTH - 1)
    document_source = np.zeros(num_rows, np.int64)


def window(*rows: int) -> list[Batch]:
    """One micro-batch; only its rows are looked at."""
    found = batch(len(rows))
    found.row_ids = np.array(rows, np.int64)
    return [found]


def spoil(module: Scores, name: str, place: Any, value: float) -> None:
    with torch.no_grad():
        module.get_parameter(name)[place] = value


def rows_of(module: nn.Module, *rows: int) -> list[int]:
    return find_non_finite_rows(module, Rows(), window(*rows), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model.lm_head.weight", math.nan, "these weights hold numbers that are not: lm_head.weight (start from others"),
        ("model.model.norm.weight", 3e38, "all weights are finite, what they compute overflows"),
    ],
)
def test_weights_that_give_no_number_are_blamed_and_not_the_kernel(
    scores: Scores, name: str, value: float, words: str
) -> None:
    spoil(scores, name, slice(None), value)
    with pytest.raises(RunFailed, match="reference check: the loss of batch 0 is nan by the plain model too") as error:
        check_reference(scores, batch(1), "fp32")
    assert words in str(error.value) and "attention" not in str(error.value)


def test_one_bad_row_is_named_and_a_whole_bad_batch_is_not(scores: Scores) -> None:
    spoil(scores, "model.model.embed_tokens.weight", 2, math.nan)
    assert rows_of(scores, 0, 2, -1) == [2]
    assert rows_of(scores, 2, -1) == [2], "the only one"
    spoil(scores, "model.lm_head.weight", 5, math.nan)
    with pytest.raises(RunFailed, match=r"step \d+: the loss of each of the 3 rows alone is not finite: these weights hold"):
        rows_of(scores, 0, 1, 3, -1)


def test_work_that_takes_long_shows_that_it_gets_on(scores: Scores, tmp_path: Path) -> None:
    before = CURRENT.count
    assert rows_of(scores, 0, 1, -1) == [] and CURRENT.count == before + 3
    plan = plan_weights(scores.model, torch.float32)
    signs = CURRENT.signs
    write_weights(tmp_path, plan, scores.model, None, torch.float32)
    assert CURRENT.signs == signs + len(plan.sources) > signs
