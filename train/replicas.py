"""Ranks that should hold the same weights compare their bits: a difference is silent corruption, and stops the run.

An engine says by `replicas()` what it holds in common with others: tensors by key, where equal keys on two ranks mean
equal bits. For ddp, zero1 and zero2 that is every trained weight on every rank; under HSDP a key names the shard too. A
fully sharded engine holds nothing twice, so there is nothing to compare: this check says so, and its checkpoints' hashes
are what remains.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from configs.errors import RunFailed
from train.distributed import gather_json

_COLUMNS = 1024
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class HasReplicas(Protocol):
    """The part of an engine that says what its ranks hold alike."""

    def replicas(self) -> dict[str, Tensor]:
        """Returns this rank's tensors by key; ranks with the same key must hold the same bits."""
        ...


def hash_bits(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Returns a 64-bit hash of each tensor's bits, in one pass over its memory and one transfer for all.

    Words are summed down 1,024 columns and the sums weighted by odd numbers, all modulo 2**64: any single flipped bit
    changes it, and so do values that change places within a row.
    """
    with torch.no_grad():
        hashes = [_hash(tensor) for tensor in tensors.values()]
    values = torch.stack(hashes).tolist() if hashes else []
    return dict(zip(tensors, map(int, values), strict=True))


def _hash(tensor: Tensor) -> Tensor:
    words = tensor.detach().contiguous().reshape(-1)
    words = words.view(_WORDS[words.element_size()])
    whole = words.numel() // _COLUMNS * _COLUMNS
    columns = torch.zeros(_COLUMNS, dtype=torch.int64, device=words.device)
    if whole:
        columns += words[:whole].view(-1, _COLUMNS).sum(0, dtype=torch.int64)
    columns[: words.numel() - whole] += words[whole:]
    odd = torch.arange(_COLUMNS, dtype=torch.int64, device=words.device) * 0x5851F42D4C957F2D * 2 + 1
    return (columns * odd).sum()


def compare_replicas(engine: HasReplicas, step: int, rank_names: Callable[[], Mapping[int, str]]) -> int:
    """Compares the weights that ranks hold in common; every rank calls it. Returns how many ranks hold copies.

    Args:
        rank_names: returns `rank 1 (host n1, pid 4711)` by rank, where known.

    Raises:
        RunFailed: some differ; names the ranks and the first parameter.
    """
    hashes = hash_bits(engine.replicas())
    keys = hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]
    total = hashlib.sha256(",".join(map(str, hashes.values())).encode()).hexdigest()[:16]
    ranks = gather_json([keys, total])
    groups: dict[str, list[int]] = {}
    for rank, (own_keys, _) in enumerate(ranks):
        groups.setdefault(own_keys, []).append(rank)
    if all(len({ranks[rank][1] for rank in group}) == 1 for group in groups.values()):
        return max(len(group) for group in groups.values()) if hashes else 0
    raise RunFailed(_describe(gather_json(hashes), groups, step, rank_names()))


def _describe(hashes: list[dict[str, Any]], groups: dict[str, list[int]], step: int, names: Mapping[int, str]) -> str:
    for group in groups.values():
        for key in hashes[group[0]]:
            counts = Counter(hashes[rank][key] for rank in group)
            if len(counts) == 1:
                continue
            (usual, most), *_ = counts.most_common()
            odd = [rank for rank in group if hashes[rank][key] != usual]
            if 2 * most > len(group):
                told = ", ".join(names.get(rank, f"rank {rank}") for rank in odd)
                who = f"{told} {'differs' if len(odd) == 1 else 'differ'} from the other {most}"
            else:
                who = " and ".join(names.get(rank, f"rank {rank}") for rank in group[:4]) + " do not agree"
            return (
                f"after step {step} the replicas of the weights are not equal any more: {who}, first in {key}. Memory, a "
                "device or an exchange changed bits without a word: test these devices before you go on. The checkpoints "
                "are from before; weights are compared at each save too"
            )
    return f"after step {step} the replicas of the weights are not equal any more"
