"""Which of some words stands nearest to a value: the last one before it in its sentence, else one that is said of it behind."""

from __future__ import annotations

import re

_REACH, _REACH_BEHIND = 36, 12
_SENTENCE_ENDS = re.compile(r"[。;!?\n]|\. ")
# `12345678 (MRN)`, `12345678 is her account`, `12345678係佢個戶口`.
_POINTS = re.compile(
    r" ?(?:\(| - |,? ?(?:is|was|as|for|being) (?:the |his |her |my |their |our |your |an? |on |in )?(?:old |new |current )?"
    r"|(?:就)?(?:係|是|為|为)(?:佢|我|他|她|病人|患者|本人)?(?:嘅|的|個|舊)?|(?:嘅|的)|呢個|这个)",
    re.IGNORECASE,
)


def choices(words: dict[str, str]) -> re.Pattern[str]:
    """Returns a pattern with a named group for each entry; of those that begin at one place the first that fits counts."""
    return re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in words.items()), re.IGNORECASE)


def nearest(words: re.Pattern[str], text: str, start: int, end: int, reach: int = _REACH) -> str | None:
    """Returns the group of `words` that names `text[start:end]`; None when there is none near."""
    before = text[max(0, start - reach) : start]
    ends = [found.end() for found in _SENTENCE_ENDS.finditer(before.rstrip(" \n"))]
    before = before[ends[-1] :] if ends else before
    named = None
    for found in words.finditer(before):
        named = found.lastgroup
    points = _POINTS.match(text, end)
    if points and (named is None or "(" in points.group()):
        found_behind = words.search(text, points.end(), points.end() + _REACH_BEHIND)
        if found_behind and not re.search(r"[0-9,。;\n]", text[points.end() : found_behind.start()]):
            named = found_behind.lastgroup
    return named
