"""Parts of named tensors: what engines hand to checkpoints, and how they read them back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import Protocol

from torch import Tensor

from train.shard_plan import flat_rectangles


@dataclass(slots=True)
class LocalShard:
    """One contiguous block of a global tensor.

    Attributes:
        tensor: this rank's block.
        global_shape: shape of the whole tensor.
        offsets: index of the block's first element in each dimension of the whole.
    """

    tensor: Tensor
    global_shape: tuple[int, ...]
    offsets: tuple[int, ...]

    @classmethod
    def whole(cls, tensor: Tensor) -> LocalShard:
        """Returns the shard that is the whole tensor."""
        return cls(tensor, tuple(tensor.shape), (0,) * tensor.dim())


class TensorReader(Protocol):
    """Whole tensors and parts of them by name, on the CPU: a checkpoint, or a folder of weights."""

    def names(self) -> Collection[str]:
        """Returns the names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the whole tensor."""
        ...

    def read(self, name: str) -> Tensor:
        """Returns the whole tensor."""
        ...

    def read_flat(self, name: str, start: int, stop: int) -> Tensor:
        """Returns elements `start` to `stop` of the tensor flattened row by row, `[stop - start]`; reads no others."""
        ...


def flat_shards(tensor: Tensor, global_shape: tuple[int, ...], start: int) -> list[LocalShard]:
    """Returns a range of a tensor flattened row by row as rectangular blocks, in the range's order; views of `tensor`.

    There are at most `2 * (dims - 1) + 1` blocks, and none for an empty range of a tensor that has elements.

    Args:
        tensor: `[n]`, elements `start` to `start + n` of the flattened whole.
        global_shape: shape of the whole.
        start: where the range begins.
    """
    if not prod(global_shape):
        return [LocalShard(tensor.view(global_shape), global_shape, (0,) * len(global_shape))]
    shards = []
    position = 0
    for offsets, shape in flat_rectangles(global_shape, start, start + tensor.numel()):
        end = position + prod(shape)
        shards.append(LocalShard(tensor[position:end].view(shape), global_shape, offsets))
        position = end
    return shards
