"""A rank's part of a named tensor: what engines hand to checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
