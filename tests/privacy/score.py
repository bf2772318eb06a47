"""Recall, precision and leaks of the detectors over labelled examples, and false alarms over clean sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.privacy.detect import find
from tests.privacy.examples import Example

# A label counts as found when nine tenths of its letters and digits are covered.
COVERED = 0.9


@dataclass(slots=True)
class Score:
    """Of one kind: labels, those found under their kind, those covered under any; finds of the kind, right ones."""

    labels: int = 0
    found: int = 0
    hidden: int = 0
    finds: int = 0
    right: int = 0
    missed: list[Example] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return self.found / self.labels if self.labels else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.finds if self.finds else 1.0

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "labels": self.labels,
            "recall": round(self.recall, 4),
            "precision": round(self.precision, 4),
            "covered_by_any_kind": round(self.hidden / self.labels, 4) if self.labels else 1.0,
        }


def score(examples: Sequence[Example]) -> dict[str, Score]:
    """Returns the score of every kind."""
    scores: dict[str, Score] = {example.kind: Score() for example in examples}
    for example in examples:
        mine = scores[example.kind]
        matches = find(example.text)
        label = {i for i in range(example.start, example.end) if example.text[i].isalnum()}
        same = {i for m in matches if m.kind == example.kind for i in range(m.start, m.end)}
        every = {i for m in matches for i in range(m.start, m.end)}
        mine.labels += 1
        found = len(label & same) >= COVERED * len(label)
        mine.found += found
        mine.hidden += len(label & every) >= COVERED * len(label)
        if not found:
            mine.missed.append(example)
        for match in matches:
            other = scores.setdefault(match.kind, Score())
            other.finds += 1
            overlap = min(match.end, example.end) - max(match.start, example.start)
            other.right += match.kind == example.kind and overlap >= 0.5 * (match.end - match.start)
    return scores


def by(examples: Sequence[Example], key: Callable[[Example], str]) -> dict[str, dict[str, Score]]:
    """Returns the scores of each part of the examples that `key` tells apart."""
    parts: dict[str, list[Example]] = {}
    for example in examples:
        parts.setdefault(key(example), []).append(example)
    return {name: score(part) for name, part in parts.items()}


def false_alarms(sentences: Iterable[str]) -> tuple[int, Counter[str]]:
    """Returns (sentences, finds by kind) of sentences that hold no identifier, so far as anybody knows."""
    number, alarms = 0, Counter[str]()
    for sentence in sentences:
        number += 1
        alarms.update(match.kind for match in find(sentence))
    return number, alarms
