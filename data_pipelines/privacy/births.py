"""Dates of birth: a date beside a word for birth. Other dates are no identifiers here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match

_MONTH = r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
_HAN = "[〇零一二三四五六七八九十廿卅]"
DATE = (
    r"(?:(?:18|19|20)\d\d ?[-/.] ?\d{1,2} ?[-/.] ?\d{1,2}|\d{1,2} ?[-/.] ?\d{1,2} ?[-/.] ?(?:(?:18|19|20)\d\d|\d\d)(?!\d)"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)?[ -]?{_MONTH},?[ -]?(?:(?:18|19|20)\d\d|\d\d)(?!\d)"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? (?:18|19|20)\d\d"
    r"|(?:18|19|20)\d\d ?年 ?\d{1,2} ?月 ?\d{1,2} ?[日號号]|(?:民國|民国) ?\d{1,3} ?年 ?\d{1,2} ?月 ?\d{1,2} ?[日號号]"
    rf"|{_HAN}{{4}}年{_HAN}{{1,3}}月{_HAN}{{1,3}}[日號号]|(?:18|19|20)\d\d[01]\d[0-3]\d(?!\d))"
)
_BEFORE = re.compile(
    r"(?:\bD\.? ?O\.? ?B\b\.?|date[ -]of[ -]birth|birth[ -]?date|birth[ -]?day|year of birth|\bborn|\bb\.|出生日期|出生年月日?|出生於|出生于|生於|生于|出生|出世|生日|誕生)"
    rf"(?:[ ]*(?:is|was|on|in|at|[:=(,-]|為|为|是|係|系|於|于|日期|喺))*[ ]*(?P<value>{DATE})",
    re.IGNORECASE,
)
_AFTER = re.compile(
    rf"(?P<value>{DATE})[ ]*\(?[ ]*(?:出生|出世|生(?![活病效產长長意])|\bD\.?O\.?B\b|\bborn|\(birth)", re.IGNORECASE
)


def find(text: str) -> Iterator[Match]:
    """Yields dates of birth."""
    for pattern in (_BEFORE, _AFTER):
        for found in pattern.finditer(text):
            yield Match("birth_date", found.start("value"), found.end("value"), Certainty.LABEL)
