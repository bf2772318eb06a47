"""Global best-fit-decreasing packing of items into rows of a fixed capacity.

Best fit is decided per *length*, not per item: all rows with the same room left are one group, and a length's items go
to the fullest group that still fits, as many at once as there are. The loop therefore runs over distinct (length, room)
pairs, a few ten thousand, whatever the number of items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Packing:
    """Which items share a row.

    Attributes:
        items: item numbers, row after row, ascending inside a row; `[num_items]`.
        offsets: row r holds `items[offsets[r]:offsets[r + 1]]`; `[num_rows + 1]`.
    """

    items: Int64
    offsets: Int64

    @property
    def num_rows(self) -> int:
        return len(self.offsets) - 1


class _OpenRows:
    """Rows by the room they have left. `_mask` has bit r set when some row has room r."""

    def __init__(self, capacity: int) -> None:
        self._groups: list[list[Int64]] = [[] for _ in range(capacity + 1)]
        self._mask = 0

    def add(self, room: int, rows: Int64) -> None:
        if room and len(rows):
            self._groups[room].append(rows)
            self._mask |= 1 << room

    def pop_fullest(self, length: int) -> tuple[int, Int64] | None:
        """Removes and returns (room, rows) of the smallest room of at least `length`."""
        fitting = self._mask >> length
        if not fitting:
            return None
        room = length + (fitting & -fitting).bit_length() - 1
        groups, self._groups[room] = self._groups[room], []
        self._mask ^= 1 << room
        return room, groups[0] if len(groups) == 1 else np.concatenate(groups)


def pack(lengths: NDArray[np.integer], capacity: int) -> Packing:
    """Packs items of `lengths` (each 1 to `capacity`) into rows of at most `capacity`, best fit decreasing.

    Deterministic: equal lengths are taken in item order.

    Raises:
        ValueError: a length is below 1 or above `capacity`.
    """
    if len(lengths) == 0:
        return Packing(np.zeros(0, np.int64), np.zeros(1, np.int64))
    if int(lengths.min()) < 1 or int(lengths.max()) > capacity:
        raise ValueError(f"lengths must be 1 to {capacity}")
    compact = lengths.astype(np.uint16 if capacity < 1 << 16 else np.int64)
    by_length = np.argsort(compact, kind="stable")
    counts = np.bincount(compact, minlength=capacity + 1)
    ends = np.cumsum(counts)
    row_of = np.empty(len(lengths), dtype=np.int32 if len(lengths) < 1 << 31 else np.int64)
    open_rows = _OpenRows(capacity)
    num_rows = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        items = by_length[ends[length] - counts[length] : ends[length]]
        while len(items):
            found = open_rows.pop_fullest(length)
            if found is None:
                room = capacity
                rows = np.arange(num_rows, num_rows - (-len(items) // (room // length)))
                num_rows += len(rows)
            else:
                room, rows = found
            per_row = min(room // length, len(items))
            used = min(len(rows), len(items) // per_row)
            taken = used * per_row
            row_of[items[:taken]] = np.repeat(rows[:used], per_row)
            items = items[taken:]
            open_rows.add(room - per_row * length, rows[:used])
            open_rows.add(room, rows[used:])
    order = np.argsort(row_of, kind="stable").astype(np.int64)
    offsets = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(row_of, minlength=num_rows), out=offsets[1:])
    return Packing(order, offsets)


def one_per_row(num_items: int) -> Packing:
    """Returns the packing that puts every item in a row of its own."""
    return Packing(np.arange(num_items, dtype=np.int64), np.arange(num_items + 1, dtype=np.int64))
