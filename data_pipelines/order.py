"""Which rows make up global batch p: a pure function of (store fingerprint, seed, position).

Rows come as an endless stream: index i belongs to epoch i // R and is the permuted row P_epoch(i % R). P is a keyed
Feistel network on the next power of four, walked until the value falls inside (Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002); nothing is materialised, so any position costs the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Order:
    """The order of rows of one run.

    Attributes:
        num_rows: rows in the store, R.
        fingerprint: of the store.
        seed: of the run.
        global_batch_size: rows of one optimizer step, G.
    """

    num_rows: int
    fingerprint: str
    seed: int
    global_batch_size: int

    def rows(self, position: int) -> Int64:
        """Returns the store rows of global batch `position`, `[G]`, read-only; O(G) at any position."""
        return _rows(self, position)

    def compute_rows(self, position: int) -> Int64:
        """Returns the same, worked out anew."""
        index = np.arange(position * self.global_batch_size, (position + 1) * self.global_batch_size, dtype=np.int64)
        epochs = index // self.num_rows
        offsets = index % self.num_rows
        out = np.empty(len(index), np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            inside = epochs == epoch
            out[inside] = self._permute(offsets[inside], epoch)
        return out

    def _permute(self, offsets: Int64, epoch: int) -> Int64:
        half_bits = max(1, ((self.num_rows - 1).bit_length() + 1) // 2)
        keys = _round_keys(self.fingerprint, self.seed, epoch)
        values = _feistel(offsets.astype(np.uint64), half_bits, keys)
        outside = values >= self.num_rows
        while outside.any():
            values[outside] = _feistel(values[outside], half_bits, keys)
            outside = values >= self.num_rows
        return values.astype(np.int64)


# The reading thread asks for a position one step before the ledger does: the loop then finds it here.
@lru_cache(maxsize=4)
def _rows(order: Order, position: int) -> Int64:
    rows = order.compute_rows(position)
    rows.flags.writeable = False
    return rows


def _round_keys(fingerprint: str, seed: int, epoch: int) -> UInt64:
    digest = hashlib.shake_256(f"{fingerprint}/{seed}/{epoch}".encode()).digest(8 * _ROUNDS)
    return np.frombuffer(digest, np.uint64)


def _feistel(values: UInt64, half_bits: int, keys: UInt64) -> UInt64:
    shift, low = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & low
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & low)
    return (left << shift) | right


def _mix(values: UInt64) -> UInt64:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014); wraps modulo 2**64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def rank_slice(rows: Int64, dp_rank: int, dp_size: int, micro_batch_size: int) -> list[Int64]:
    """Returns this rank's micro-batches of the global batch `rows`, `[micro_batch_size]` each; -1 is an empty row.

    Each rank gets ceil(G / (dp_size * micro_batch_size)) of them; together they hold every row once.
    """
    num_micro = -(-len(rows) // (dp_size * micro_batch_size))
    padded = np.full(num_micro * dp_size * micro_batch_size, -1, np.int64)
    padded[: len(rows)] = rows
    return list(padded.reshape(num_micro, dp_size, micro_batch_size)[:, dp_rank])
