"""Values behind the word that says what they are: `MRN no.: 12345`, `病歷號碼為 12345`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match

# Number words, a remark in brackets, a verb or mark, quotes of key-value lines, one line break of a form.
_NUMBER_WORD = r"(?:numbers?|num\b\.?|nos?\b\.?|nr\b\.?|#|id\b|ref(?:erence)?\b\.?|code\b|號碼|号码|編號|编号|編碼|编码|號|号)"
_VERB = (
    r"(?:is|was|of|reads|under|as|shows?|recorded as|should be|given as|changed to|為|为|是|係|系|:|=|-|,|\(|\||>|/|顯示|显示|寫住|寫著|写着|印住|改為|改为)"
)
LINK = rf"[ ]{{0,3}}{_NUMBER_WORD}?[\"' ]{{0,3}}(?:\([^()\n\d]{{1,24}}\))?[ ]{{0,3}}{_VERB}?[ ]{{0,2}}(?:is|:|\(|#|嘅|的)?[\"' ]{{0,3}}(?<!\n)\n?[ ]{{0,2}}"


def labelled(labels: str, value: str) -> re.Pattern[str]:
    """Returns a pattern whose group `value` is `value` right behind one of `labels` (a regular expression's choices)."""
    return re.compile(rf"(?:(?<![A-Za-z])(?:{labels}))(?:(?<![A-Za-z])|(?![A-Za-z]{{2}})){LINK}(?P<value>{value})", re.IGNORECASE)


def values(
    pattern: re.Pattern[str], text: str, kind: str, certainty: Certainty = Certainty.LABEL
) -> Iterator[Match]:
    """Yields a find for the group `value` of every match."""
    for found in pattern.finditer(text):
        yield Match(kind, found.start("value"), found.end("value"), certainty)
