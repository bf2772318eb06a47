"""Who writes which block of which tensor, and the index that says where everything is. Pure functions, torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from train.shard_files import NUMPY_DTYPES, Block

Rectangle = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """A block without its elements; fields as in Block."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    global_shape: tuple[int, ...]
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, name: str, block: Block) -> BlockSpec:
        """Returns the description of `block`."""
        return cls(name, block.dtype, tuple(block.data.shape), block.global_shape, block.offsets)

    @property
    def key(self) -> str:
        """Name of the block in its rank's file: the tensor's own at offset 0, else `NAME@o0,o1,...`."""
        return self.key_of(self.name, self.offsets)

    @staticmethod
    def key_of(name: str, offsets: tuple[int, ...]) -> str:
        """Returns `key` of the block of tensor `name` at `offsets`."""
        return f"{name}@{','.join(map(str, offsets))}" if any(offsets) else name

    @property
    def nbytes(self) -> int:
        """Size of the block in bytes."""
        return prod(self.shape) * np.dtype(NUMPY_DTYPES[self.dtype]).itemsize

    def to_json(self) -> list[Any]:
        """Returns the fields as JSON values."""
        return [self.name, self.dtype, list(self.shape), list(self.global_shape), list(self.offsets)]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> BlockSpec:
        """Rebuilds what `to_json` returned."""
        name, dtype, shape, global_shape, offsets = values
        return cls(name, dtype, tuple(shape), tuple(global_shape), tuple(offsets))


def share_blocks(held: Sequence[Sequence[BlockSpec]]) -> list[list[BlockSpec]]:
    """Returns the blocks each rank writes, given those it holds.

    A block held by several ranks goes to the one with the fewest bytes so far (the lowest of equals); every rank
    computes the same answer. Empty blocks of a tensor that is not empty are written by nobody.
    """
    holders: dict[BlockSpec, list[int]] = {}
    for rank, specs in enumerate(held):
        for spec in specs:
            if prod(spec.shape) or not prod(spec.global_shape):
                holders.setdefault(spec, []).append(rank)
    shares: list[list[BlockSpec]] = [[] for _ in held]
    load = [0] * len(held)
    # Largest first balances best; the name makes the order total.
    for spec in sorted(holders, key=lambda s: (len(holders[s]) > 1, -s.nbytes, s.name, s.offsets)):
        rank = min(holders[spec], key=lambda r: (load[r], r))
        shares[rank].append(spec)
        load[rank] += spec.nbytes
    return shares


def make_index(shares: Sequence[Sequence[BlockSpec]]) -> dict[str, Any]:
    """Returns the JSON index of all tensors: dtype, global shape, and the rank, key, offsets and shape of each block.

    Raises:
        RuntimeError: the blocks of a tensor overlap, leave a hole or disagree; a bug of the engine, not of the user.
    """
    blocks: dict[str, list[tuple[int, BlockSpec]]] = {}
    for rank, specs in enumerate(shares):
        for spec in specs:
            blocks.setdefault(spec.name, []).append((rank, spec))
    tensors: dict[str, Any] = {}
    for name, parts in sorted(blocks.items()):
        first = parts[0][1]
        if any((s.dtype, s.global_shape) != (first.dtype, first.global_shape) for _, s in parts):
            raise RuntimeError(f"{name}: ranks disagree about its type or shape")
        covered = sum(prod(s.shape) for _, s in parts)
        places = (place for _, s in parts for place in zip(s.offsets, s.shape, s.global_shape, strict=True))
        outside = any(low < 0 or low + n > limit for low, n, limit in places)
        if outside or covered != prod(first.global_shape) or _overlap([s for _, s in parts]):
            raise RuntimeError(f"{name}: the ranks' blocks do not cover it exactly once")
        tensors[name] = {
            "dtype": first.dtype,
            "shape": list(first.global_shape),
            "blocks": [
                {"rank": rank, "key": s.key, "offsets": list(s.offsets), "shape": list(s.shape)} for rank, s in parts
            ],
        }
    return {"tensors": tensors, "ranks": len(shares)}


def _overlap(specs: Sequence[BlockSpec]) -> bool:
    """True when two of the blocks share an element; sorted along the first split dimension, so usually linear."""
    ordered = sorted(specs, key=lambda s: s.offsets)
    for i, a in enumerate(ordered):
        for b in ordered[i + 1 :]:
            pairs = zip(a.offsets, a.shape, b.offsets, b.shape, strict=True)
            if all(max(x, y) < min(x + n, y + m) for x, n, y, m in pairs):
                return True
            if a.offsets and b.offsets[0] >= a.offsets[0] + a.shape[0]:
                break
    return False


def flat_rectangles(shape: tuple[int, ...], start: int, stop: int) -> list[Rectangle]:
    """Returns (offsets, shape) of the rectangles that elements `start` to `stop` of a flattened tensor consist of.

    Along the first dimension a range is a piece of one row, whole rows, and a piece of one more row; the pieces are
    ranges of a tensor with one dimension less.
    """
    if stop <= start:
        return []
    if not shape:
        return [((), ())]
    inner, row = shape[1:], prod(shape[1:])
    first, last = -(-start // row), stop // row  # the whole rows between them
    if first > last:  # within one row
        return _pieces(inner, last, start - last * row, stop - last * row)
    head = _pieces(inner, first - 1, row - (first * row - start), row)
    whole: list[Rectangle] = []
    if last > first:
        whole.append(((first, *(0,) * len(inner)), (last - first, *inner)))
    return head + whole + _pieces(inner, last, 0, stop - last * row)


def _pieces(inner: tuple[int, ...], index: int, start: int, stop: int) -> list[Rectangle]:
    return [((index, *offsets), (1, *shape)) for offsets, shape in flat_rectangles(inner, start, stop)]
