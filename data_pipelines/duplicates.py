"""Exact and near duplicates: training rows that repeat a held-out row, and training rows that repeat each other.

MinHash (Broder 1997) of the 4-character shingles of the folded text, 128 hash functions by `rensa`, the low 8 bits of each
kept (b-bit minwise hashing, Li and Koenig 2010, arXiv 0910.3349, eq. 5): 128 bytes a row. Rows that agree in a whole band
are compared; two rows are near duplicates when their estimated Jaccard similarity reaches the threshold.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.folding import letters_of
from data_pipelines.split import hash_bytes

Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]

NUM_HASHES = 128
SHINGLE = 4
# Raise when the same two texts could be told apart where they were not, or the other way round.
RULES_VERSION = 1
_SEED = 42
# From this similarity 16 bands of 8 hashes find 93 % and more of the pairs; below, 32 bands of 4 do.
_WIDE_BANDS_FROM = 0.78
# Rows of one band that a row is compared with at most: templates put thousands into one.
_MOST_COMPARED = 32
_PAIRS_AT_ONCE = 1 << 18


@dataclass(slots=True)
class Marks:
    """What is kept of rows to compare them. One entry per row, in reading order.

    Attributes:
        lines: input line `[R]`; exact: hash of the folded letters `[R]`; signatures: `[R, 128]`.
    """

    lines: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    exact: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    signatures: Bytes = field(default_factory=lambda: np.zeros((0, NUM_HASHES), np.uint8))


def marks_of(lines: Sequence[int], texts: Sequence[str]) -> Marks:
    """Returns the marks of rows given by their texts."""
    if not texts:
        return Marks()
    letters = [letters_of(text) for text in texts]
    # What is only marks and blanks is compared as it stands.
    bodies = [found or text for found, text in zip(letters, texts, strict=True)]
    exact = [hash_bytes(body.encode("utf-8", "surrogatepass")) for body in bodies]
    return Marks(np.array(lines, np.int64), np.array(exact, np.int64), _signatures(bodies))


def _signatures(bodies: Sequence[str]) -> Bytes:
    """Returns the low 8 bits of the 128 MinHash values of each text, `[R, 128]`."""
    from rensa import RMinHash

    codes = np.frombuffer("".join(bodies).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(body) for body in bodies], np.int64)
    starts = np.cumsum(lengths) - lengths
    # A text shorter than a shingle is one shingle of what there is, filled up with zeros.
    counts = np.maximum(lengths - SHINGLE + 1, 1)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts) + np.repeat(starts, counts)
    ends = np.repeat(starts + lengths, counts)
    hashes = np.zeros(offsets[-1], np.uint64)
    with np.errstate(over="ignore"):
        for i in range(SHINGLE):
            inside = places + i < ends
            code = np.where(inside, codes[np.minimum(places + i, len(codes) - 1)], np.uint64(0))
            hashes = (hashes + code + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            hashes ^= hashes >> np.uint64(29)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), NUM_HASHES, _SEED)
    return np.array(matrix.to_rows(), np.uint32).astype(np.uint8)


class MarkFile:
    """The marks of all rows while files are read: signatures in a file, numbers in memory."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "signatures"
        self._file: IO[bytes] = self._path.open("wb")
        self._lines: list[Int64] = []
        self._exact: list[Int64] = []
        self._files: list[Int64] = []
        self.num_rows = 0

    def add(self, file: int, marks: Marks) -> int:
        """Appends the rows of a chunk of file number `file`; returns the number of the first of them."""
        first = self.num_rows
        if len(marks.lines):
            self._file.write(marks.signatures.tobytes())
            self._lines.append(marks.lines)
            self._exact.append(marks.exact)
            self._files.append(np.full(len(marks.lines), file, np.int64))
            self.num_rows += len(marks.lines)
        return first

    def close(self) -> None:
        self._file.close()

    def finish(self) -> AllMarks | None:
        """Returns the marks of all rows; None when there are none. After `close`."""
        if not self._lines:
            return None
        signatures = np.memmap(self._path, np.uint8, "r").reshape(-1, NUM_HASHES)
        files, lines, exact = map(np.concatenate, (self._files, self._lines, self._exact))
        return AllMarks(files, lines, exact, signatures)


@dataclass(frozen=True, slots=True)
class AllMarks:
    """The marks of all rows of all files: number of the file, line, exact hash and signature of each."""

    files: Int64
    lines: Int64
    exact: Int64
    signatures: Bytes


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows that repeat others: `partner[i]` is the row that row i repeats, -1 when there is none; `exact[i]` letter by letter."""

    partner: Int64
    exact: NDArray[np.bool_]

    @property
    def any(self) -> NDArray[np.bool_]:
        return self.partner >= 0


def across(marks: AllMarks, rows: Int64, others: Int64, similarity: float) -> Repeats:
    """Returns which of `rows` repeat one of `others`; deterministic.

    Args:
        marks: of all rows.
        rows: numbers of the rows to look at, e.g. of the training part; others: e.g. of the held-out part.
        similarity: estimated Jaccard similarity from which two rows are near duplicates, 0.5 to 1.
    """
    partner = np.full(len(rows), -1, np.int64)
    place, found = _looked_up(marks.exact[rows], marks.exact[others])
    partner[found] = others[place[found]]
    exact = found.copy()
    for mine, theirs in zip(_bands(marks.signatures[rows], similarity), _bands(marks.signatures[others], similarity), strict=True):
        open_rows = np.flatnonzero(partner < 0)
        order = np.argsort(theirs, kind="stable")
        low = np.searchsorted(theirs, mine[open_rows], "left", sorter=order)
        high = np.searchsorted(theirs, mine[open_rows], "right", sorter=order)
        counts = np.minimum(high - low, _MOST_COMPARED)
        for first, last in _pieces(counts):
            repeated = np.repeat(np.arange(first, last), counts[first:last])
            ends = np.cumsum(counts[first:last])
            inside = np.arange(len(repeated)) - np.repeat(ends - counts[first:last], counts[first:last])
            candidates = others[order[low[repeated] + inside]]
            same = _similarity(marks.signatures, rows[open_rows[repeated]], candidates) >= similarity
            # Written backwards, so that the first candidate stays.
            partner[open_rows[repeated[same]][::-1]] = candidates[same][::-1]
    return Repeats(partner, exact)


def within(marks: AllMarks, rows: Int64, similarity: float) -> Repeats:
    """Returns which of `rows` repeat an earlier one of them; each is compared with the first row of its bands only."""
    partner = np.full(len(rows), -1, np.int64)
    first = _first_of(marks.exact[rows])
    exact = first < np.arange(len(rows))
    partner[exact] = rows[first[exact]]
    for band in _bands(marks.signatures[rows], similarity):
        first = _first_of(band)
        candidates = np.flatnonzero((partner < 0) & (first < np.arange(len(rows))))
        for start in range(0, len(candidates), _PAIRS_AT_ONCE):
            some = candidates[start : start + _PAIRS_AT_ONCE]
            same = _similarity(marks.signatures, rows[some], rows[first[some]]) >= similarity
            partner[some[same]] = rows[first[some[same]]]
    return Repeats(partner, exact)


def _first_of(values: NDArray[Any]) -> Int64:
    """Returns for each value where it stands first."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], np.int64)


def _looked_up(values: Int64, table: Int64) -> tuple[Int64, NDArray[np.bool_]]:
    """Returns where in `table` each value stands first, and whether it does."""
    order = np.argsort(table, kind="stable")
    place = order[np.minimum(np.searchsorted(table, values, sorter=order), len(table) - 1)]
    return place, table[place] == values


def _bands(signatures: Bytes, similarity: float) -> list[NDArray[Any]]:
    """Returns the bands of the signatures as numbers: 16 of 64 bits, or 32 of 32 bits for a low similarity."""
    kind = np.uint64 if similarity >= _WIDE_BANDS_FROM else np.uint32
    bands = np.ascontiguousarray(signatures).view(kind)
    return [np.ascontiguousarray(bands[:, i]) for i in range(bands.shape[1])]


def _pieces(counts: Int64) -> list[tuple[int, int]]:
    """Returns ranges of rows that have at most about a quarter of a million pairs together."""
    block = (np.cumsum(counts) - 1) // _PAIRS_AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(counts)]
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b]


def _similarity(signatures: Bytes, left: Int64, right: Int64) -> NDArray[np.float64]:
    """Returns the estimated Jaccard similarity of pairs of rows: equal bytes, less those equal by chance."""
    equal = (signatures[left] == signatures[right]).mean(axis=1)
    return np.asarray((equal - 1 / 256) / (1 - 1 / 256), np.float64)
