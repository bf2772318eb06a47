"""The order of rows is one sequence, whatever the ranks and micro-batches."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.order import Order, rank_slice

GOLDEN_START = [887, 551, 534, 4, 93, 996, 73, 272]
GOLDEN_FAR = [243, 236, 744, 903, 319, 378, 307, 931]


def _order(num_rows: int, *, global_batch_size: int = 4, seed: int = 1, fingerprint: str = "f") -> Order:
    return Order(num_rows=num_rows, fingerprint=fingerprint, seed=seed, global_batch_size=global_batch_size)


def _stream(order: Order, count: int) -> list[int]:
    batches = -(-count // order.global_batch_size)
    return [row for position in range(batches) for row in order.rows(position).tolist()][:count]


@settings(deadline=None)
@given(num_rows=st.integers(1, 300), global_batch_size=st.integers(1, 16), seed=st.integers(0, 2**31))
def test_every_row_once_in_every_epoch(num_rows: int, global_batch_size: int, seed: int) -> None:
    stream = _stream(_order(num_rows, global_batch_size=global_batch_size, seed=seed), 3 * num_rows)
    for epoch in range(3):
        assert sorted(stream[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


@settings(deadline=None)
@given(num_rows=st.integers(1, 100), global_batch_size=st.integers(1, 16))
def test_the_stream_does_not_depend_on_the_batch_size(num_rows: int, global_batch_size: int) -> None:
    count = 2 * num_rows
    assert _stream(_order(num_rows, global_batch_size=global_batch_size), count) == _stream(_order(num_rows), count)


@pytest.mark.parametrize("global_batch_size", range(1, 17))
@pytest.mark.parametrize("dp_size", range(1, 8))
@pytest.mark.parametrize("micro_batch_size", range(1, 5))
def test_any_split_over_ranks_consumes_one_order(global_batch_size: int, dp_size: int, micro_batch_size: int) -> None:
    order = _order(23, global_batch_size=global_batch_size)
    for position in range(8):
        rows = order.rows(position)
        slices = [rank_slice(rows, rank, dp_size, micro_batch_size) for rank in range(dp_size)]
        assert {len(parts) for parts in slices} == {-(-global_batch_size // (dp_size * micro_batch_size))}
        assert {len(part) for parts in slices for part in parts} == {micro_batch_size}
        # Micro-batch by micro-batch, rank by rank, the rows come in the order's own sequence; the rest is empty.
        joined = np.concatenate([part for window in zip(*slices, strict=True) for part in window])
        assert joined[:global_batch_size].tolist() == rows.tolist()
        assert (joined[global_batch_size:] == -1).all()


def test_seed_store_and_epoch_change_the_order() -> None:
    first = _stream(_order(200), 400)
    assert _stream(_order(200), 400) == first
    assert first[:200] != first[200:]
    assert _stream(_order(200, seed=2), 400) != first
    assert _stream(_order(200, fingerprint="g"), 400) != first


def test_the_order_is_fixed_for_ever() -> None:
    # A change here breaks the continuation of every run that exists.
    assert _order(1000, global_batch_size=8).rows(0).tolist() == GOLDEN_START
    assert _order(1000, global_batch_size=8).rows(10**7).tolist() == GOLDEN_FAR


def test_rows_are_spread_evenly() -> None:
    # Where row 0 falls over many epochs: uniform, by a chi-square test far beyond chance (99.99 % point of 15 degrees).
    order = _order(64, global_batch_size=64)
    places = np.array([order.rows(epoch).tolist().index(0) for epoch in range(1600)])
    counts = np.bincount(places // 4, minlength=16)
    assert ((counts - 100.0) ** 2 / 100.0).sum() < 44.3


def test_resuming_far_ahead_costs_nothing() -> None:
    order = _order(118_860, global_batch_size=512)
    began = time.process_time()
    order.rows(10**7)
    assert time.process_time() - began < 0.1
