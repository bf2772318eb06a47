"""Dates of birth: a date beside a word for birth. Other dates are no identifiers here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.context import choices, nearest
from data_pipelines.privacy.kinds import Certainty, Match

_MONTH = r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
_HAN = "[〇零一二三四五六七八九十廿卅]"
_WEEKDAY = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?,? )?"
# Digits may stand apart, as in the boxes of a form.
_YEAR, _SHORT, _DAY = r"(?:1 ?[89]|2 ?0) ?\d ?\d", r"\d ?\d(?!\d)", r"\d(?: ?\d)?"
_MARK, _GAP = r" {0,2}[-/.] {0,2}", r"[ /,.-]{0,2}"
DATE = (
    rf"{_WEEKDAY}(?:{_YEAR}{_MARK}{_DAY}{_MARK}{_DAY}(?!\d)|{_DAY}{_MARK}{_DAY}{_MARK}(?:{_YEAR}|{_SHORT})(?!\d)"
    rf"|{_DAY} ?(?:st|nd|rd|th)?(?: day)?(?: of)?{_GAP}{_MONTH}{_GAP}(?:{_YEAR}|{_SHORT})(?!\d)"
    rf"|{_MONTH}{_GAP}{_DAY}(?:st|nd|rd|th)?,?{_GAP}{_YEAR}|{_YEAR}{_GAP}{_MONTH}{_GAP}{_DAY}(?!\d)"
    rf"|(?:{_YEAR}|(?:民國|民国)? ?{_DAY}\d?) ?年 ?{_DAY} ?月 ?{_DAY} ?[日號号]?"
    rf"|(?:民國|民国)?{_HAN}{{2,4}}年{_HAN}{{1,3}}月{_HAN}{{1,3}}[日號号]?|(?:18|19|20)\d\d[01]\d[0-3]\d(?!\d)|[0-3]\d[01]\d(?:19|20)\d\d(?!\d)"
    rf"|{_YEAR} ?年 ?{_DAY} ?月(?:份)?|(?:18|19|20)\d\d[,/ -]{{1,2}}\d{{1,2}}[,/ -]{{1,2}}\d{{1,2}}(?!\d)|\d{{1,2}} \d{{1,2}} (?:19|20)\d\d(?!\d))"
)
_WORD = (
    r"(?:\bD\.? ?O\.? ?B\b\.?|\bB\.? ?D\b\.?|date[ _-]?of[ _-]?birth|birth[ _-]?date|birth[ _-]?day|year of birth|\bdate born|\bborn|\bbirth|\bb\.|"
    r"出生年月日?|出生日期|出生日子|出生|出世|生日|誕生|诞生|誕辰|生辰|生年月日|(?<![醫医先學学])生[於于])"
)
# What may stand between the word and the date: marks, a form's `(dd/mm/yyyy)`, quotes, a few small words, one line break.
_LINK = (
    r"(?:[ \"':=(,|>/-]|\([a-z年月日/ .-]{2,16}\)|\b(?:is|was|on|in|at|the|falls|given|as|recorded|registered|stated|reads|shows?|me|him|her|date)\b|"
    r"日期|日子|為|为|是|係|系|於|于|喺|在|應該|应该|應為|应为|登記|登记|就|即|我|佢|他|她|嘅|的|西曆|公历|公曆|新曆|\n)"
)
_BEFORE = re.compile(rf"{_WORD}{_LINK}{{0,8}}(?P<value>{DATE})", re.IGNORECASE)
_AFTER = re.compile(
    rf"(?P<value>{DATE})[ \"']*(?:\(|,|-|is|was|係|是|為|为)?[ ]*(?:the |his |her |my |their |your |佢|我|病人|患者|他|她)?(?:嘅|的)?(?:出生|出世|生日|誕生|诞生|生辰|生(?![活病效產产長长意理命存])|\bD\.?O\.?B\b|\bborn|birth|\bdate of birth)",
    re.IGNORECASE,
)
_SEX = r"(?:\b(?:male|female|m|f)\b|男性?|女性?)"
_AGE = r"(?:\b(?:aged?|age[d:]?) ?\d{1,3}\b|\d{1,3} ?(?:歲|岁|\by/?o\b|yrs?\b|years?[ -]old))"
_BETWEEN = r"[ ,|;/()\t-]{0,4}"
_LAST_CENTURY = re.compile(r"(?<!\d)(?:18|19)\d\d(?!\d)|^(?:18|19)\d{6}$|(?:18|19)\d\d$|[〇零一二三四五六七八九]{4}年")
# A date right beside a person's sex or age, in a line about a person, is a birth.
_BESIDE = re.compile(rf"(?:(?<!\d){_SEX}{_BETWEEN}(?P<value>{DATE})|{_AGE} ?\([ ]?(?P<value3>{DATE})|(?P<value2>{DATE}){_BETWEEN}(?:{_SEX}|{_AGE}))", re.IGNORECASE)

_DATE = re.compile(rf"(?<![A-Za-z0-9]){DATE}", re.IGNORECASE)
# What a date is said to be, from a little farther off.
_NEAR = choices(
    {
        "birth": r"(?<![a-z])(?:born|birth|d\.?o\.?b\b|b'?-?day)|出生|出世|生日|誕生|诞生|誕辰|生辰|大壽|(?<![醫医先學学])生[於于]",
        "other": (
            r"(?<![a-z])(?:admi|discharg|seen|visit|surg|operat|appoint|follow|f/?u\b|dated?\b|review|scan|ct\b|mri|biops|report|diagnos|onset|since|until|last|next|died|death|"
            r"sign|issue|valid|expir|start|chemo|cycle|referr|attend|book|call|today|collect|receiv|taken|transfer)"
            r"|入院|出院|手術|手术|覆診|複診|复诊|檢查|检查|診斷|诊断|報告|报告|預約|预约|約|去世|死亡|過身|簽|签|發出|有效|化療|化疗|電療|放療|开始|開始|起|今日|採樣|就診|就诊|轉"
        ),
    }
)

# A full date of the last century in a line about a person, not said to be anything else, is most often a birth.
_PERSON = re.compile(
    r"(?<![a-z])(?:patients?|pt|sex|gender|male|female|aged?|name|hkid|id|identity|verif\w*|insured|applicant|member|resident|holder|client|student|m|f|mr|mrs|ms|miss|yo|years?)(?![a-z])"
    r"|病人|患者|姓名|性別|性别|[男女歲岁]|身份|核對|核对|核實|核实|受保|申請人|申请人|會員|会员|住客|院友|客戶|客户|先生|女士|小姐|婆婆|伯伯",
    re.IGNORECASE,
)


# Of a longer line only what stands right before the date counts: whole articles stand in one.
_LINE, _BEHIND = 400, 24


def _is_of_a_person(text: str, date: re.Match[str]) -> bool:
    """True when the line of a date, up to a little behind it, is about a person."""
    first = max(0, date.start() - _LINE)
    return _PERSON.search(text, max(first, text.rfind("\n", first, date.start()) + 1), date.end() + _BEHIND) is not None


def find(text: str) -> Iterator[Match]:
    """Yields dates of birth."""
    for pattern in (_BEFORE, _AFTER):
        for found in pattern.finditer(text):
            yield Match("birth_date", found.start("value"), found.end("value"), Certainty.LABEL)
    for found in _DATE.finditer(text):
        named = nearest(_NEAR, text, found.start(), found.end())
        if named == "birth" or (named is None and _LAST_CENTURY.search(found.group()) and _is_of_a_person(text, found)):
            yield Match("birth_date", found.start(), found.end(), Certainty.CONTEXT)
    for found in _BESIDE.finditer(text):
        group = found.lastgroup or ""
        yield Match("birth_date", found.start(group), found.end(group), Certainty.CONTEXT)
