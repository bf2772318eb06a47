"""Identity cards: Hong Kong's (Immigration Department, weights 9 to 2 modulo 11) and the mainland's (GB 11643-1999)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.labels import labelled
from data_pipelines.privacy.numbers import PHONE, said

_GAP = r"[ -]{0,3}"
_HKID = rf"[A-Z](?:{_GAP}[A-Z])?{_GAP}(?:\d{_GAP}){{6}}(?:\({_GAP}[0-9A]{_GAP}\)|[0-9A])(?![A-Za-z0-9])"
_CHECKED = re.compile(rf"(?<![A-Za-z0-9])(?={_HKID})(?P<value>{_HKID})", re.IGNORECASE)
_CARD_WORDS = (
    r"HK ?ID|H\.K\.I\.D\.?|HKIC|ID card|identity card|identity document|(?<!patient )ID|香港身份證|身份證明?|身份证|身分證|身分证|證件|证件"
)
# With the word in front a mistyped or missing check digit is still somebody's card.
_SAID = labelled(_CARD_WORDS, rf"[A-Z](?:{_GAP}[A-Z])?{_GAP}(?:\d{_GAP}){{5}}\d(?:{_GAP}\({_GAP}[0-9A]{_GAP}\)|{_GAP}\d|(?-i:{_GAP}A))?(?![A-Za-z0-9])")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_MAINLAND = re.compile(rf"(?<![A-Za-z0-9])[1-9](?:{_GAP}\d){{16}}{_GAP}[0-9Xx](?![A-Za-z0-9])")
_MAINLAND_SAID = labelled(_CARD_WORDS, rf"[1-9](?:{_GAP}\d){{16}}{_GAP}[0-9X](?![A-Za-z0-9])|[1-9]\d{{14}}(?!\d)")


def hkid_check(body: str) -> str:
    """Returns the check character of a prefix of one or two letters and six digits, e.g. 3 for A123456."""
    numbers = [36] * (8 - len(body)) + [ord(c) - 55 if c.isalpha() else int(c) for c in body.upper()]
    rest = (11 - sum(number * weight for number, weight in zip(numbers, range(9, 1, -1), strict=True)) % 11) % 11
    return "A" if rest == 10 else str(rest)


def mainland_check(body: str) -> str:
    """Returns the check character of 17 digits (ISO 7064, modulo 11-2)."""
    return "10X98765432"[sum(int(digit) * weight for digit, weight in zip(body, _WEIGHTS, strict=True)) % 11]


def _characters(text: str) -> str:
    return "".join(c for c in text.upper() if c.isalnum())


def find(text: str) -> Iterator[Match]:
    """Yields identity card numbers of both places."""
    for found in _CHECKED.finditer(text):
        value = _characters(found["value"])
        # `on 4571 6618 1717 7793`: two letters in front of a longer number.
        goes_on = "(" not in found["value"] and re.match(r"[ -]{1,3}\d", text[found.end("value") : found.end("value") + 4])
        if hkid_check(value[:-1]) == value[-1] and not goes_on:
            # One letter and seven digits may be another number that the word in front of it names.
            certainty = Certainty.IDENTITY if "(" in found["value"] or "-" in found["value"] else Certainty.SUM
            yield Match("hkid", found.start(), found.end(), certainty)
    for found in _SAID.finditer(text):
        # `chart ID A1234567`: a word for something else stands nearer than one for a card.
        if said(text, found.start("value"), found.end("value")) in (None, "hkid", PHONE):
            yield Match("hkid", found.start("value"), found.end("value"), Certainty.LABEL)
    for found in _MAINLAND.finditer(text):
        value = _characters(found.group())
        if _is_born(value[6:14]) and mainland_check(value[:-1]) == value[-1]:
            yield Match("mainland_id", found.start(), found.end(), Certainty.IDENTITY)
    for found in _MAINLAND_SAID.finditer(text):
        yield Match("mainland_id", found.start("value"), found.end("value"), Certainty.LABEL)


def _is_born(digits: str) -> bool:
    return digits[:2] in ("18", "19", "20") and 1 <= int(digits[4:6]) <= 12 and 1 <= int(digits[6:]) <= 31
