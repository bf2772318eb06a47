"""The sample ledger: equal heads mean equal consumption."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from data_pipelines.ledger import Ledger

ROWS = np.array([3, 1, 2], dtype=np.int64)


def _head(steps: list[tuple[int, int, list[int], list[int]]], fingerprint: str = "f") -> str:
    ledger = Ledger(fingerprint)
    for step, position, rows, skipped in steps:
        ledger.append(step, position, np.array(rows, dtype=np.int64), skipped)
    return ledger.head


def test_head_is_the_documented_chain() -> None:
    start = hashlib.sha256(b"f").hexdigest()
    assert Ledger("f").head == start
    expected = hashlib.sha256(bytes.fromhex(start) + b"0/7/4,5/" + ROWS.astype("<i8").tobytes()).hexdigest()
    ledger = Ledger("f")
    assert ledger.append(0, 7, ROWS, [4, 5]) == expected
    assert ledger.head == expected


def test_continued_at_a_head_it_goes_on_as_if_never_interrupted() -> None:
    whole = Ledger("f")
    whole.append(0, 0, ROWS)
    continued = Ledger("f", whole.head)
    assert continued.append(1, 1, ROWS[::-1]) == whole.append(1, 1, ROWS[::-1])


@pytest.mark.parametrize(
    "other",
    [
        [(1, 0, [1, 2], [])],
        [(0, 1, [1, 2], [])],
        [(0, 0, [2, 1], [])],
        [(0, 0, [1, 2, -1], [])],
        [(0, 0, [1, 2], [3])],
        [],
        [(0, 0, [1, 2], []), (1, 1, [], [])],
    ],
)
def test_anything_consumed_otherwise_gives_another_head(other: list[tuple[int, int, list[int], list[int]]]) -> None:
    assert _head(other) != _head([(0, 0, [1, 2], [])])


def test_another_store_gives_another_head() -> None:
    assert _head([], "f") != _head([], "g")
