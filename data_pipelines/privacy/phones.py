"""Telephone numbers of Hong Kong (eight digits) and the mainland (mobiles of eleven, lines with an area code)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.numbers import OTHER, PHONE, said

_HK_PREFIX = r"(?:\(? ?(?:\+|0 ?0)? ?8 ?5 ?2 ?\)?[ -]{0,3})"
_HK_LOCAL = r"[2-9]\d{3}[ -]{0,2}\d{4}|[2-9](?:[ -]{1,3}\d){7}|[2-9]\d[ -]\d\d[ -]\d\d[ -]\d\d|[2-9]\d\d[ -]\d\d\d[ -]\d\d"
# Any grouping, where a word or prefix says that it is a telephone.
_HK_LOOSE = r"[2-9](?:[ .-]{0,3}\d){7}"
_EDGE = r"(?<![A-Za-z0-9.])(?<!\d[-/])"
_HK = re.compile(rf"{_EDGE}(?P<prefix>{_HK_PREFIX})?(?P<local>{_HK_LOCAL}|(?P<loose>{_HK_LOOSE}))(?![A-Za-z0-9])(?!-\d)(?!\.\d)")
_MOBILE = r"1[ -]?[3-9][ -]?\d(?:[ -]{0,3}\d){8}"
# The mainland's lines: an area code with its 0 (left out behind +86), a gap, seven or eight digits.
_AREA = r"(?:1 ?0|2 ?\d|[3-9] ?\d ?\d)"
_LINE = rf"\(? ?0 ?{_AREA} ?\)?[ -]{{0,3}}[2-8](?:[ -]?\d){{6,7}}"
_ABROAD = rf"\(? ?(?:\+|0 ?0) ?8 ?6 ?\)?[ -]{{0,3}}\(?{_AREA}\)?[ -]{{0,3}}[2-8](?:[ -]?\d){{6,7}}"
_MAINLAND = re.compile(
    rf"{_EDGE}(?:(?:\(? ?(?:\+|0 ?0)? ?8 ?6 ?\)?[ -]{{0,3}})?(?:(?P<mobile>{_MOBILE})|{_LINE})|{_ABROAD})(?![A-Za-z0-9])(?!-\d{{5}})(?!\.\d)"
)
# A word of these in front: the number is another thing's, whatever its shape.
_NO_PHONE = (OTHER, "bank_account", "card")


def find(text: str) -> Iterator[Match]:
    """Yields telephone numbers."""
    for found in _MAINLAND.finditer(text):
        named = said(text, found.start(), found.end())
        if named == PHONE or "+" in found.group():
            yield Match("phone_mainland", found.start(), found.end(), Certainty.LABEL)
        elif named not in _NO_PHONE:
            certainty = Certainty.SUM if found["mobile"] else Certainty.SHAPE
            yield Match("phone_mainland", found.start(), found.end(), certainty)
    for found in _HK.finditer(text):
        named = said(text, found.start(), found.end())
        if found["prefix"] or named == PHONE:
            yield Match("phone_hk", found.start(), found.end(), Certainty.LABEL)
        elif named is None and not found["loose"] and _looks_like_hk(text, found):
            yield Match("phone_hk", found.start(), found.end(), Certainty.SHAPE)


def _looks_like_hk(text: str, found: re.Match[str]) -> bool:
    """True for eight digits without a word or prefix that are no date, no years and no amount."""
    digits = "".join(c for c in found["local"] if c.isdigit())
    if digits[0] not in "235679":
        return False
    if digits[:2] in ("19", "20") and ("19" <= digits[4:6] <= "20" or (digits[4:6] <= "12" and digits[6:] <= "31")):
        return False
    return re.match(r" ?(?:元|蚊|人|次|%|mg|ml|dollars)", text[found.end() : found.end() + 8]) is None
