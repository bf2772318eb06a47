"""Text as the detectors read it: half width, one kind of dash and blank, no look-alikes, each character's origin kept.

`fold` never loses where a character came from: a span of the folded text is always one of the original.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

# Capital and small letters of Greek and Cyrillic that look like Latin ones, and the dashes.
_LOOKALIKE = dict(
    zip(
        "АВЕКМНОРСТУХаеорсухіΑΒΕΖΗΙΚΜΝΟΡΤΥΧο‐‑‒–—―−﹣－﹘",
        "ABEKMHOPCTYXaeopcyxiABEZHIKMNOPTYXo----------",
        strict=True,
    )
)
# What looks alike as a capital is one letter as a small one too: `Α` and `α` are one, so `α` and `a` are.
SMALL_LOOKALIKE = str.maketrans({k.casefold(): v.casefold() for k, v in _LOOKALIKE.items() if v.isalpha()} | {"ı": "i"})
_BRACKETS = {"【": "(", "】": ")", "〔": "(", "〕": ")", "「": "(", "」": ")", "[": "(", "]": ")"}
_CHINESE_DIGITS = dict(zip("〇零一二三四五六七八九壹贰叁肆伍陆柒捌玖貳參陸", "001234567891234567892" "36", strict=True))
_AS_IT_IS = re.compile(r"[ -Z\\^-~\n]*")
# Fewer in a row are words: 一一, 九七.
_DIGIT_RUN = re.compile(f"[{''.join(_CHINESE_DIGITS)}0-9](?:[ -]?[{''.join(_CHINESE_DIGITS)}0-9]){{5,}}")


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded text. `starts[i]` and `ends[i]` are where character i of `text` lies in the original; None: where it is."""

    text: str
    starts: list[int] | None = None
    ends: list[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns where `text[start:end]`, which is not empty, lies in the original."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


@cache
def fold_character(character: str) -> str:
    """Returns what one character is read as; nothing for those without width."""
    if character in _LOOKALIKE:
        return _LOOKALIKE[character]
    if character in _BRACKETS:
        return _BRACKETS[character]
    if unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return ""
    if character in "\r\n":
        return "\n"
    if character.isspace():
        return " "
    folded = unicodedata.normalize("NFKC", character)
    return "".join(_LOOKALIKE.get(one, one) for one in folded)


def fold(text: str) -> Folded:
    """Returns `text` as the detectors read it."""
    if _AS_IT_IS.fullmatch(text):
        return Folded(text)
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for place, character in enumerate(text):
        piece = fold_character(character)
        pieces.append(piece)
        for _ in piece:
            starts.append(place)
            ends.append(place + 1)
    folded = _DIGIT_RUN.sub(_as_digits, "".join(pieces))
    return Folded(folded, starts, ends)


def _as_digits(run: re.Match[str]) -> str:
    return "".join(_CHINESE_DIGITS.get(character, character) for character in run.group())


def canonical(value: str) -> str:
    """Returns what two spellings of one value share: no case, no width, no blanks; dashes and brackets are kept."""
    return "".join(fold(value).text.split()).casefold()


def bare(value: str) -> str:
    """Returns the letters and digits of a value without case and width: the same for every way to group them."""
    return "".join(character for character in fold(value).text if character.isalnum()).casefold()
