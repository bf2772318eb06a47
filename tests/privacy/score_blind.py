"""Scores of the blind set, whose notes hold several identifiers each, and false alarms on its clean sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from data_pipelines.privacy.detect import find
from data_pipelines.privacy.kinds import Match
from tests.privacy.score import COVERED, Score
from tests.privacy.values_blind import Note

NAMES = ("name_zh", "name_en")


def matches(notes: Sequence[Note], engines: Sequence[Callable[[str], list[Match]]] = ()) -> list[list[Match]]:
    """Returns what is found in each note, by the rules and by `engines` beside them."""
    return [find(note.text, engines) for note in notes]


def score_notes(notes: Sequence[Note], found: Sequence[list[Match]], key: Callable[[Note], str] = lambda _: "") -> dict[str, dict[str, Score]]:
    """Returns the score of every kind for each value of `key`.

    A label is found when nine tenths of its letters and digits are covered under its kind. A find is right when at least
    half of it lies on a label of its kind. The author left a surname with a title unlabelled on purpose ("陳太", "Mr Wong"):
    a name of one word, or one character, that is no label is neither right nor wrong.
    """
    scores: dict[str, dict[str, Score]] = {}
    for note, hits in zip(notes, found, strict=True):
        mine = scores.setdefault(key(note), {})
        same = {kind: {i for hit in hits if hit.kind == kind for i in range(hit.start, hit.end)} for _, _, kind in note.spans}
        every = {i for hit in hits for i in range(hit.start, hit.end)}
        for start, end, kind in note.spans:
            one = mine.setdefault(kind, Score())
            label = {i for i in range(start, end) if note.text[i].isalnum()}
            one.labels += 1
            one.found += len(label & same[kind]) >= COVERED * len(label)
            one.hidden += len(label & every) >= COVERED * len(label)
        for hit in hits:
            right = any(
                kind == hit.kind and min(hit.end, end) - max(hit.start, start) >= 0.5 * (hit.end - hit.start) for start, end, kind in note.spans
            )
            if not right and hit.kind in NAMES and _is_one_word(note.text[hit.start : hit.end]):
                continue
            one = mine.setdefault(hit.kind, Score())
            one.finds += 1
            one.right += right
    return scores


def _is_one_word(value: str) -> bool:
    return " " not in value.strip() and (value.isascii() or len(value) == 1)


def alarms(found: Sequence[list[Match]]) -> Counter[str]:
    """Returns the finds of clean sentences by kind; each is a false alarm."""
    return Counter(hit.kind for hits in found for hit in hits)
