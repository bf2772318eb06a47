"""The blind set is sound in itself: spans, counts, check digits, variants. The detector has no part here."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import combinations

import pytest

from tests.privacy import values_blind as blind

FOLD = {**{other: char for char, other in blind.LOOKALIKES.items()}, **blind.SWAPS}


@pytest.fixture(scope="module")
def notes() -> list[blind.Note]:
    return blind.notes()


@pytest.fixture(scope="module")
def clean() -> list[blind.Note]:
    return blind.clean()


def _fold(value: str) -> str:
    plain = "".join(FOLD.get(char, char) for char in unicodedata.normalize("NFKC", value))
    return re.sub(r"[\s-]", "", plain)


def _values(notes: list[blind.Note], kind: str) -> list[str]:
    return [plain for note in notes for (_, _, found), plain in zip(note.spans, note.plain, strict=True) if found == kind]


def test_there_are_enough_of_every_kind_language_and_variant(notes: list[blind.Note]) -> None:
    kinds = Counter(kind for note in notes for _, _, kind in note.spans)
    assert set(kinds) == set(blind.KINDS)
    assert sum(kinds.values()) >= 1600
    assert min(kinds.values()) >= 110, kinds
    assert {note.language for note in notes} == {"zh", "en", "mixed"}
    of_variant = {variant: {kind for note in notes if note.variant == variant for _, _, kind in note.spans} for variant in blind.VARIANTS}
    assert of_variant == {variant: set(blind.KINDS) for variant in ("plain", "full_width", "spaced", "mixed")}


def test_spans_are_the_values_in_order_and_their_plain_forms(notes: list[blind.Note]) -> None:
    for note in notes:
        assert note.spans, note.template
        last = 0
        for (start, end, _), plain in zip(note.spans, note.plain, strict=True):
            assert last <= start < end <= len(note.text)
            value, last = note.text[start:end], end
            assert value == value.strip(), note.template
            assert (value == plain) == (note.variant == "plain"), (note.template, note.variant)
            assert _fold(value) == _fold(plain), (note.template, note.variant)
        assert not re.search(r"\{[a-z]+\d*(:[a-z])?\}", note.text), note.template


def test_check_digits_are_right(notes: list[blind.Note]) -> None:
    assert blind.hkid_check("A", "123456") == "3"  # the specimen number everyone prints
    assert blind.hkid_check("AB", "987654") == "3"
    assert blind.mainland_check("11010519491231002") == "X"  # GB 11643-1999's own example
    assert blind.luhn_check("7992739871") == "3"
    for value in _values(notes, "hkid"):
        prefix, digits, check = re.fullmatch(r"([A-Z]{1,2})(\d{6}) ?\(?([\dA])\)?", value).groups()  # type: ignore[union-attr]
        assert blind.hkid_check(prefix, digits) == check
    for value in _values(notes, "mainland_id"):
        assert blind.mainland_check(value[:17]) == value[17].upper()
    for value in _values(notes, "card"):
        digits = re.sub(r"\D", "", value)
        assert len(digits) in (15, 16, 19)
        assert blind.luhn_check(digits[:-1]) == digits[-1]


def test_phones_and_addresses_of_mail_have_their_shapes(notes: list[blind.Note]) -> None:
    for value in _values(notes, "phone_hk"):
        assert re.fullmatch(r"(852|00852)?[2356789]\d{7}", re.sub(r"\D", "", value)), value
    for value in _values(notes, "phone_mainland"):
        assert re.fullmatch(r"(00)?(86)?(1\d{10}|0?(10|2\d|7\d\d)\d{8})", re.sub(r"\D", "", value)), value
    assert all(re.fullmatch(r"[\w.+]+@[\w.]+\.\w+", value) for value in _values(notes, "email"))


def test_one_seed_gives_one_set(notes: list[blind.Note], clean: list[blind.Note]) -> None:
    assert blind.notes() == notes
    assert blind.clean() == clean
    assert blind.notes(1) != notes


def test_wordings_are_many_and_unlike_each_other() -> None:
    found = {name: set() for name, _, _ in blind.templates()}  # type: dict[str, set[str]]
    assert len(found) >= 150
    for name, _, wording in blind.templates():
        text = re.sub(r"\{\w+(:\w)?\}|\s", "", wording)
        found[name] = {text[place : place + 3] for place in range(len(text) - 2)}
    for (one, left), (two, right) in combinations(found.items(), 2):
        assert len(left & right) <= 0.4 * min(len(left), len(right)), (one, two)


def test_nothing_outside_the_spans_is_an_identifier(notes: list[blind.Note], clean: list[blind.Note]) -> None:
    assert len(clean) >= 300
    values = {plain for note in notes for plain in note.plain}
    rests = [_unlabelled(note) for note in notes]
    assert not [text for text in (note.text for note in clean) if "@" in text or any(value in text for value in values)]
    for text in rests + [note.text for note in clean]:
        assert "@" not in text
        for letter, digits, check in re.findall(r"([A-Z]{1,2})(\d{6})\(([\dA])\)", text):
            assert blind.hkid_check(letter, digits) != check
        for digits in re.findall(r"(?<!\d)\d{18}(?!\d)", text):
            assert blind.mainland_check(digits[:-1]) != digits[-1]
        for digits in re.findall(r"(?<!\d)\d{13,19}(?!\d)", text.replace(" ", "")):
            assert blind.luhn_check(digits[:-1]) != digits[-1] or len(digits) == 18


def _unlabelled(note: blind.Note) -> str:
    text, last = "", 0
    for start, end, _ in note.spans:
        text, last = f"{text}{note.text[last:start]}|", end
    return text + note.text[last:]
