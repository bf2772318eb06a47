"""How well identifiers are found: the blind set first, labelled ones held apart, and false alarms."""

from __future__ import annotations

import time

import pytest

from benchmarks.privacy import BLIND_FLOORS, FIRST_ALARMS, FLOORS, PER_KIND, SEED, chinese_sentences, english_sentences
from data_pipelines.privacy.detect import find
from tests.privacy import values_blind as blind
from tests.privacy.examples import Example, make_examples
from tests.privacy.score import Score, false_alarms, score
from tests.privacy.score_blind import alarms, matches, score_notes


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return make_examples(SEED, PER_KIND)


@pytest.fixture(scope="module")
def apart(examples: list[Example]) -> dict[str, Score]:
    return score([example for example in examples if example.part == "apart"])


@pytest.fixture(scope="module")
def of_the_blind_set() -> dict[str, Score]:
    notes = blind.notes()
    return score_notes(notes, matches(notes))[""]


def test_half_of_all_labels_are_by_somebody_who_had_not_read_the_rules(examples: list[Example], of_the_blind_set: dict[str, Score]) -> None:
    assert len({example.kind for example in examples}) >= 12
    assert sum(one.labels for one in of_the_blind_set.values()) >= max(1600, len(examples))
    assert {example.language for example in examples} == {"zh", "en", "mixed"}
    assert {example.variant for example in examples} == {"plain", "full width", "spaced", "mixed"}


@pytest.mark.parametrize("kind", sorted(BLIND_FLOORS))
def test_identifiers_of_the_blind_set_are_found_as_measured(of_the_blind_set: dict[str, Score], kind: str) -> None:
    recall, precision = BLIND_FLOORS[kind]
    assert of_the_blind_set[kind].recall >= recall
    assert of_the_blind_set[kind].precision >= precision


def test_false_alarms_in_the_clean_sentences_of_the_blind_set() -> None:
    clean = blind.clean()
    assert 1000 * alarms(matches(clean)).total() / len(clean) <= FIRST_ALARMS + 5


@pytest.mark.parametrize("kind", sorted(FLOORS))
def test_identifiers_held_apart_are_found_as_measured(apart: dict[str, Score], kind: str) -> None:
    recall, precision = FLOORS[kind]
    assert apart[kind].recall >= recall
    assert apart[kind].precision >= precision


def test_identity_cards_at_least_99_percent_both(examples: list[Example]) -> None:
    found = score(examples)["hkid"]
    assert found.recall >= 0.99 and found.precision >= 0.99


def test_false_alarms_on_real_sentences() -> None:
    number, alarms = false_alarms(chinese_sentences(2000))
    assert number == 2000 and alarms.total() <= 60, alarms
    number, alarms = false_alarms(english_sentences(2000))
    assert number == 2000 and alarms.total() <= 4, alarms


@pytest.mark.parametrize(
    "text",
    [("12 " + "CYCLES OF CARBOPLATIN GIVEN AT THE DAY WARD " * 6) * 40, "H.i.s.t.o.r.y." * 10 + " at", "A " * 9000, "The treaty of 12 March 1950 on tariffs. " * 1200, "0f3a" * 15_000 + " @"],
    ids=["capitals", "dots", "letters", "one line", "hex"],
)
def test_no_text_takes_long(text: str) -> None:
    """A pattern that can be met in many ways and then is not takes minutes for a page of notes."""
    began = time.process_time()
    find(text)
    assert time.process_time() - began < 4
