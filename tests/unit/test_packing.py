"""Packing: every item once, capacity kept, as full as promised, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.packing import Packing, one_per_row, pack


def _row_totals(packing: Packing, lengths: np.ndarray) -> np.ndarray:
    return np.add.reduceat(lengths[packing.items], packing.offsets[:-1])


@settings(deadline=None)
@given(st.data())
def test_every_item_once_and_no_row_over_capacity(data: st.DataObject) -> None:
    capacity = data.draw(st.integers(1, 70))
    lengths = np.array(data.draw(st.lists(st.integers(1, capacity), max_size=60)), dtype=np.int64)
    packing = pack(lengths, capacity)
    assert sorted(packing.items.tolist()) == list(range(len(lengths)))
    assert packing.offsets[0] == 0
    assert packing.offsets[-1] == len(lengths)
    if len(lengths):
        assert (np.diff(packing.offsets) > 0).all()
        assert _row_totals(packing, lengths).max() <= capacity


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_best_fit_never_leaves_two_rows_that_would_fit_in_one(lengths: list[int]) -> None:
    array = np.array(lengths)
    totals = np.sort(_row_totals(pack(array, 50), array))
    assert len(totals) < 2 or totals[0] + totals[1] > 50


def _plain_best_fit(lengths: list[int], capacity: int) -> int:
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(capacity - length)
    return len(rooms)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_as_few_rows_as_best_fit_item_by_item(lengths: list[int]) -> None:
    assert pack(np.array(lengths), 40).num_rows <= _plain_best_fit(lengths, 40)


def test_items_of_equal_length_are_taken_in_order() -> None:
    packing = pack(np.array([5, 5, 5, 5, 10]), 10)
    assert packing.items.tolist() == [4, 0, 1, 2, 3]
    assert packing.offsets.tolist() == [0, 1, 3, 5]


def test_a_long_capacity_and_wide_lengths() -> None:
    lengths = np.array([100_000, 131_072, 31_072, 1])
    packing = pack(lengths, 131_072)
    assert packing.num_rows == 3
    assert _row_totals(packing, lengths).max() == 131_072


def test_log_normal_lengths_fill_the_rows() -> None:
    lengths = np.random.default_rng(0).lognormal(np.log(300), 1, 1_000_000).clip(1, 4096).astype(np.int64)
    packing = pack(lengths, 4096)
    assert lengths.sum() / (packing.num_rows * 4096) >= 0.999
    assert _row_totals(packing, lengths).max() <= 4096
    assert np.bincount(packing.items, minlength=len(lengths)).tolist() == [1] * len(lengths)


@pytest.mark.parametrize("lengths", [[0, 4], [4, 9], [-1]])
def test_lengths_out_of_range(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="lengths must be 1 to 8"):
        pack(np.array(lengths), 8)


def test_nothing_to_pack() -> None:
    assert pack(np.zeros(0, np.int64), 8).num_rows == 0
    assert one_per_row(0).num_rows == 0


def test_one_per_row() -> None:
    packing = one_per_row(3)
    assert packing.items.tolist() == [0, 1, 2]
    assert packing.offsets.tolist() == [0, 1, 2, 3]
