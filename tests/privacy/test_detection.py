"""How well identifiers are found: labelled ones by kind, half of them foreign to the rules, and false alarms."""

from __future__ import annotations

import pytest

from benchmarks.privacy import FLOORS, PER_KIND, SEED, chinese_sentences, english_sentences
from tests.privacy.examples import Example, make_examples
from tests.privacy.score import Score, false_alarms, score


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return make_examples(SEED, PER_KIND)


@pytest.fixture(scope="module")
def apart(examples: list[Example]) -> dict[str, Score]:
    return score([example for example in examples if example.part == "apart"])


def test_the_set_is_what_it_says(examples: list[Example]) -> None:
    assert len(examples) >= 2000 and len({example.kind for example in examples}) >= 12
    assert 2 * sum(example.part == "apart" for example in examples) >= len(examples)
    assert {example.language for example in examples} == {"zh", "en", "mixed"}
    assert {example.variant for example in examples} == {"plain", "full width", "spaced", "mixed"}


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
