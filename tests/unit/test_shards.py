"""Flat ranges of tensors as rectangles: exact cover, bitwise, few blocks."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from hypothesis import given
from hypothesis import strategies as st

from train.shards import LocalShard, flat_shards

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], list[int]]:
    """A shape and the places where its flattened elements are cut, both ends included."""
    shape = draw(SHAPES)
    places = draw(st.lists(st.integers(0, prod(shape)), max_size=4))
    return shape, sorted([0, *places, prod(shape)])


def put(target: torch.Tensor, shard: LocalShard) -> None:
    place = tuple(slice(o, o + n) for o, n in zip(shard.offsets, shard.tensor.shape, strict=True))
    target[place] += shard.tensor


@given(cuts())
def test_ranges_cover_the_tensor_exactly_once(case: tuple[tuple[int, ...], list[int]]) -> None:
    shape, places = case
    flat = torch.arange(1, prod(shape) + 1, dtype=torch.float64)
    seen = torch.zeros(shape, dtype=torch.float64)
    for low, high in pairwise(places):
        shards = flat_shards(flat[low:high], shape, low)
        assert len(shards) <= 2 * (max(1, len(shape)) - 1) + 1
        assert torch.equal(torch.cat([s.tensor.reshape(-1) for s in shards] or [flat[:0]]), flat[low:high])
        for shard in shards:
            assert shard.global_shape == shape and len(shard.offsets) == len(shape)
            put(seen, shard)
    assert torch.equal(seen, flat.view(shape)), "an element is missing, or there twice"


def test_blocks_are_views_of_the_range() -> None:
    flat = torch.arange(10.0)
    for shard in flat_shards(flat, (4, 5), 3):
        shard.tensor.zero_()
    assert not flat.any()


def test_whole_rows_are_one_block() -> None:
    (shard,) = flat_shards(torch.arange(12.0), (5, 2, 3), 6)
    assert (shard.offsets, tuple(shard.tensor.shape)) == ((1, 0, 0), (2, 2, 3))
