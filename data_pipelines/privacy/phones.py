"""Telephone numbers of Hong Kong (eight digits) and the mainland (mobiles of eleven, lines with an area code)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.labels import comes_before

_HK_PREFIX = r"(?:\(? ?(?:\+|0 ?0)? ?8 ?5 ?2 ?\)?[ -]{0,3})"
_HK_LOCAL = r"[2-9]\d{3}[ -]{0,2}\d{4}|[2-9](?:[ -]{1,3}\d){7}|[2-9]\d[ -]\d\d[ -]\d\d[ -]\d\d|[2-9]\d\d[ -]\d\d\d[ -]\d\d"
_EDGE = r"(?<![A-Za-z0-9.])(?<!\d[-/])"
_HK = re.compile(rf"{_EDGE}(?P<prefix>{_HK_PREFIX})?(?P<local>{_HK_LOCAL})(?![A-Za-z0-9])(?!-\d)(?!\.\d)")
_MOBILE = r"1[ -]?[3-9][ -]?\d(?:[ -]{0,3}\d){8}"
_LINE = r"\(?0(?: ?[1-9])(?: ?\d){1,2}\)? ?[ -]{1,2}[2-8](?:[ -]?\d){6,7}"
_MAINLAND = re.compile(
    rf"{_EDGE}(?:\(? ?(?:\+|0 ?0)? ?8 ?6 ?\)?[ -]{{0,3}})?(?P<local>{_MOBILE}|{_LINE})(?![A-Za-z0-9])(?!-\d)(?!\.\d)"
)
_WORDS = re.compile(
    r"(?:tel|phone|mobile|mob|cell|call(?:ed)?|ring|whats ?app|contact|sms|fax|wechat|hotline|reach(?:ed)?|number is|line"
    r"|電話|电话|手機|手机|致電|致电|聯絡|联络|聯繫|联系|打畀|打俾|打去|打|傳真|传真|熱線|热线|短訊|短信|撥打?|拨打?|來電|来电)",
    re.IGNORECASE,
)
# What numbers of eight digits usually are when they are not telephones.
_OTHER = re.compile(
    r"(?:\$|hkd|rmb|usd|¥|€|£|ref|invoice|order|sample|lab|specimen|accession|batch|lot|serial|no\.?|#|nct|pmid|doi|isbn|grant"
    r"|version|code|訂單|订单|編號|编号|號碼|号码|單號|单号|批號|批号|帳|账|賬|戶口|户口|金額|金额|元)[ :.#]*(?:is|為|为|是)?[ :]*$",
    re.IGNORECASE,
)


def find(text: str) -> Iterator[Match]:
    """Yields telephone numbers."""
    for found in _MAINLAND.finditer(text):
        certain = comes_before(_WORDS, text, found.start())
        if certain or not comes_before(_OTHER, text, found.start()):
            yield Match("phone_mainland", found.start(), found.end(), Certainty.LABEL if certain else Certainty.SHAPE)
    for found in _HK.finditer(text):
        certain = bool(found["prefix"]) or comes_before(_WORDS, text, found.start())
        if certain or _looks_like_hk(text, found):
            yield Match("phone_hk", found.start(), found.end(), Certainty.LABEL if certain else Certainty.SHAPE)


def _looks_like_hk(text: str, found: re.Match[str]) -> bool:
    """True for eight digits without a word or prefix that are no date, no years and no other thing's number."""
    digits = "".join(c for c in found["local"] if c.isdigit())
    if digits[0] not in "235679" or comes_before(_OTHER, text, found.start()):
        return False
    if digits[:2] in ("19", "20") and ("19" <= digits[4:6] <= "20" or (digits[4:6] <= "12" and digits[6:] <= "31")):
        return False
    return re.match(r" ?(?:元|蚊|人|次|%|mg|ml|dollars)", text[found.end() : found.end() + 8]) is None
