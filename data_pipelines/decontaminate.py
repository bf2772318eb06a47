"""Evaluation items in training text: data.decontaminate names the files, this finds the rows that hold a piece of one.

A piece is an n-gram as in GPT-3 (Brown et al. 2020, appendix C) and PaLM (Chowdhery et al. 2022, section 8): 13 words in a row,
here after folding (width, case, script, marks and blanks are nothing). A Chinese character is a word of its own, of which
20 in a row are asked for: about as many words. A shorter text of an item counts as a whole from 8 words, or 12 characters, on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from data_pipelines.folding import fold_text
from data_pipelines.problems import RowProblem
from data_pipelines.rows import rows_of
from data_pipelines.sources import InputFile, find_files, open_bytes, read_chunks
from data_pipelines.texts import strings

UInt64 = NDArray[np.uint64]

# Words in a row; and words of which at least this many are Chinese characters.
WORDS, CHARACTERS = 13, 20
HAN_AT_LEAST = 7
SHORT_WORDS, SHORT_CHARACTERS = 8, 12
# A piece that stands in more items than this is the benchmark's own phrase (`which of the following ...`), not an item.
MOST_ITEMS = 10
# Raise when the same row and files could give another answer.
RULES_VERSION = 2
_UNIT = re.compile(r"[㐀-鿿豈-﫿\U00020000-\U0002a6df]|[^\W\d_㐀-鿿豈-﫿\U00020000-\U0002a6df]+|\d+")
_FIRST_HAN = "㐀"
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_BITS = 22
_LOW = np.uint64(2**_BITS - 1)
# Between two texts: no piece holds it.
_GAP = np.uint64(0x5DEECE66D1234567)


@dataclass(frozen=True, slots=True)
class Items:
    """The pieces of all items.

    Attributes:
        pieces: hashes, sorted `[P]`; item: which item each is from `[P]`.
        filter: True where some piece has these low bits, `[2 ** 22]`.
        lengths: of pieces in words, longest first: 20, 13 and those of whole short texts.
        num_items: rows of the files; checked: those with a piece to look for.
        common_pieces: pieces that stand in more than `MOST_ITEMS` items.
    """

    pieces: UInt64
    item: NDArray[np.int64]
    filter: NDArray[np.bool_]
    lengths: tuple[int, ...]
    num_items: int
    checked: int
    common_pieces: int

    def found_in(self, texts: Sequence[str]) -> list[int | None]:
        """Returns for each text the number of an item of which it holds a piece; None when it holds none."""
        found: list[int | None] = [None] * len(texts)
        parts = [np.append(_units(text)[0], _GAP) for text in texts]
        if not parts:
            return found
        units = np.concatenate(parts)
        ends = np.cumsum([len(part) for part in parts])
        for length in self.lengths:
            hashes = _windows(units, length)
            maybe = np.flatnonzero(self.filter[hashes & _LOW])
            places = np.minimum(np.searchsorted(self.pieces, hashes[maybe]), len(self.pieces) - 1)
            right = self.pieces[places] == hashes[maybe]
            rows = np.searchsorted(ends, maybe[right], "right")
            for row, item in zip(rows.tolist(), self.item[places[right]].tolist(), strict=True):
                if found[row] is None:
                    found[row] = item
        return found


@lru_cache(maxsize=1 << 18)
def _hash_of(unit: str) -> int:
    return int.from_bytes(hashlib.blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _units(text: str) -> tuple[UInt64, NDArray[np.bool_]]:
    """Returns the hashes of the words and Chinese characters of a text, and which of them are characters."""
    units = _UNIT.findall(fold_text(text))
    hashes = np.array([_hash_of(unit) for unit in units], np.uint64)
    return hashes, np.array([len(unit) == 1 and unit >= _FIRST_HAN for unit in units], np.bool_)


def _windows(units: UInt64, length: int) -> UInt64:
    """Returns the hashes of all windows of `length` units."""
    count = max(0, len(units) - length + 1)
    hashes = np.full(count, length, np.uint64)
    with np.errstate(over="ignore"):
        for i in range(length if count else 0):
            hashes = (hashes ^ units[i : i + count]) * _MULTIPLIER
            hashes ^= hashes >> np.uint64(31)
    return hashes


def _pieces_of(text: str) -> list[tuple[int, UInt64]]:
    """Returns (length, hashes) of one text of an item: windows of 13 mostly words, of 20 mostly characters, or all of it."""
    units, han = _units(text)
    sums = np.concatenate([[0], np.cumsum(han)])
    found = []
    for length in (WORDS, CHARACTERS):
        hashes = _windows(units, length)
        many = sums[length:] - sums[: len(hashes)] >= HAN_AT_LEAST
        hashes = hashes[many if length == CHARACTERS else ~many]
        if len(hashes):
            found.append((length, hashes))
    least = SHORT_CHARACTERS if np.count_nonzero(han) * 2 > len(units) else SHORT_WORDS
    if not found and len(units) >= least:
        found.append((len(units), _windows(units, len(units))))
    return found


def read_items(paths: Sequence[str]) -> Items:
    """Returns the pieces of the items of all files: JSONL, JSON, CSV, TSV, Parquet or text, every text of a row.

    Raises:
        DataError: a file that is not there or cannot be read, a row that is none, or no text long enough in any.
    """
    pieces: list[UInt64] = []
    owners: list[NDArray[np.int64]] = []
    lengths: set[int] = set()
    number = 0
    for path in paths:
        for texts in _items_of(path):
            found = [piece for text in texts for piece in _pieces_of(text)]
            lengths |= {length for length, _ in found}
            if found:
                mine = np.unique(np.concatenate([hashes for _, hashes in found]))
                pieces.append(mine)
                owners.append(np.full(len(mine), number))
            number += 1
    if not pieces:
        raise DataError(
            f"data.decontaminate={', '.join(paths)}: no text of {SHORT_WORDS} words or {SHORT_CHARACTERS} Chinese characters "
            "in it; give the files that hold the questions"
        )
    owner = np.concatenate(owners)
    values, first, place, counts = np.unique(
        np.concatenate(pieces), return_index=True, return_inverse=True, return_counts=True
    )
    kept = counts <= MOST_ITEMS
    known = np.zeros(2**_BITS, np.bool_)
    known[values[kept] & _LOW] = True
    return Items(
        values[kept],
        owner[first[kept]],
        known,
        tuple(sorted(lengths, reverse=True)),
        number,
        len(np.unique(owner[kept[place]])),
        int((~kept).sum()),
    )


def _items_of(path: str) -> Iterator[list[str]]:
    """Yields the texts of every item of the files at `path`."""
    for file in evaluation_files(path):
        if file.path.lower().endswith(".json") and (document := _whole(file)) is not None:
            entries = document if isinstance(document, list) else list(document.values())
            yield from (list(strings(entry)) for entry in entries)
            continue
        for chunk in read_chunks(file, 0):
            if isinstance(chunk, tuple):
                raise _unusable(file, *chunk)
            for line, row in rows_of(chunk, file.kind):
                if isinstance(row, RowProblem):
                    raise _unusable(file, line, row)
                yield list(strings(row))


def _whole(file: InputFile) -> list[object] | dict[str, object] | None:
    """Returns a JSON document of the file as one value; None when it is one object a line."""
    with open_bytes(file.path) as stream:
        content = stream.read()
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, (list, dict)) else None


def _unusable(file: InputFile, line: int, problem: RowProblem) -> DataError:
    place = f" {file.place} {line:,}" if line else ""
    return DataError(f"data.decontaminate: {file.path}{place}: {problem.problem}; {problem.remedy}")


def evaluation_files(path: str) -> list[InputFile]:
    """Returns the files that one entry of data.decontaminate names.

    Raises:
        DataError: there are none, or their kind is unknown.
    """
    try:
        return find_files("evaluation", path, online=False)
    except DataError as error:
        raise DataError(f"data.decontaminate: {error}") from error


def files_of(paths: Sequence[str]) -> list[Path]:
    """Returns all files whose bytes decide what is found."""
    return [path for entry in paths for file in evaluation_files(entry) for path in file.hashed_paths()]
