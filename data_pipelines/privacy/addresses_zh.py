"""Addresses in Chinese: a chain of places, streets, buildings and their numbers that holds a street or estate and a number."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match

_HAN = r"[\u4e00-\u9fff]"
_AREA = r"(?:中國|中国|香港特別行政區|香港|九龍|九龙|新界|港島|澳門|台灣|臺灣)"
_PLACE_END = r"(?:特別行政區|自治區|自治区|自治州|省|市|區|区|縣|县|州|鎮|镇|鄉|乡|村|旗)"
_STREET_END = r"(?:大道|馬路|马路|街道|街|道|路|里|巷|弄|徑|径|坊|圍|围|段|胡同|公路|邨|苑|花園|花园|灣畔|新城|山莊|山庄|小區|小区|廣場|广场|新村|屋苑|城|臺|台|居)"
_HOUSE_END = r"(?:大廈|大厦|大樓|大楼|公寓|中心|樓|楼|閣|阁|軒|轩|座|庭|舍|商場|工業大廈)"
_NUMBER = r"(?:\d{1,5}|[一二三四五六七八九十百]{1,4}|[A-Za-z]\d{0,4})(?:[-至]\d{1,4})?[A-Za-z]?"
_UNIT = r"(?:號|号|樓|楼|室|座|期|層|层|單元|单元|棟|栋|幢|房|巷|弄|段|鄰|組|组|字樓|铺|舖|地下)(?:之\d+)?"
_NAMED = rf"{_HAN}{{1,9}}?(?:{_PLACE_END}|{_STREET_END}|{_HOUSE_END})"
_CHAIN = re.compile(
    rf"(?:(?<!\d)\d{{3,6}} )?(?:(?:{_AREA}|{_NAMED})[ ,，]{{0,2}}){{1,8}}"
    rf"(?:(?:{_HAN}{{1,6}}?)?(?:第? ?{_NUMBER} ?{_UNIT}|{_NAMED}|地下|[A-Z]座)[ ,，]{{0,2}}){{1,8}}(?:\d{{6}}(?!\d))?"
)
_HAS_STREET = re.compile(rf"{_HAN}(?:{_STREET_END}|{_HOUSE_END})")
_HAS_NUMBER = re.compile(rf"{_NUMBER} ?{_UNIT}|[A-Z]座")
_LEAD = re.compile(
    rf"^.*?(?:地址(?:為|为|是|係)?|住址|居住於|居住于|居住在|住在|居於|居于|住喺|住於|現住|现住|家住|位於|位于|寄到|寄往|寄去|送到|送往|送去|搬到|搬去|搬往|來自|来自|返回|返|住|在|喺|於|于|到|往|為|为|係)(?={_HAN}{{2}})"
)


def find(text: str) -> Iterator[Match]:
    """Yields addresses, without the words that lead to them."""
    for found in _CHAIN.finditer(text):
        if not _HAS_NUMBER.search(found.group()):
            continue
        start = found.start()
        lead = _LEAD.match(found.group())
        if lead and _HAS_STREET.search(found.group(), lead.end()) and _HAS_NUMBER.search(found.group(), lead.end()):
            start += lead.end()
        value = text[start : found.end()].rstrip(" ,，")
        if _HAS_STREET.search(value) and len(value) >= 5:
            yield Match("address_zh", start, start + len(value), Certainty.CONTEXT)
