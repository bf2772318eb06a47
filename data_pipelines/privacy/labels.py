"""Values behind the word that says what they are: `MRN no.: 12345`, `病歷號碼為 12345`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match

LINK = (
    r"[ ]{0,3}(?:numbers?|num\b\.?|nos?\b\.?|nr\b\.?|#|id\b|號碼|号码|編號|编号|號|号)?[ ]{0,3}(?:\((?:no\.?|號碼|号码)\))?"
    r"[ ]{0,3}(?:is|was|of|reads|為|为|係|系|是|:|=|-|,|\()?[ ]{0,2}(?:is|:|\()?[ ]{0,3}"
)


def labelled(labels: str, value: str) -> re.Pattern[str]:
    """Returns a pattern whose group `value` is `value` right behind one of `labels` (a regular expression's choices)."""
    return re.compile(rf"(?:(?<![A-Za-z])(?:{labels}))(?:(?<![A-Za-z])|(?![A-Za-z]{{2}})){LINK}(?P<value>{value})", re.IGNORECASE)


def values(
    pattern: re.Pattern[str], text: str, kind: str, certainty: Certainty = Certainty.LABEL
) -> Iterator[Match]:
    """Yields a find for the group `value` of every match."""
    for found in pattern.finditer(text):
        yield Match(kind, found.start("value"), found.end("value"), certainty)


def comes_before(pattern: re.Pattern[str], text: str, place: int, reach: int = 16) -> bool:
    """True when `pattern` matches in the `reach` characters before `place`."""
    return pattern.search(text, max(0, place - reach), place) is not None
