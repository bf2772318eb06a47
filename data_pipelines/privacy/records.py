"""Medical record numbers (a person's file) and hospital numbers (a stay, a visit): by their word, or by HA's prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.labels import labelled, values

_VALUE = r"(?:[A-Z]{1,6}[ ./-]{0,2})?\d(?:[ -]?[0-9A-Z/]){3,15}(?:[ ]?\([0-9A-Z]\))?(?![A-Za-z0-9])"
_RECORD_WORDS = (
    r"MRN|M\.R\.N\.?|NHS|URN|HRN|PMI|EMR|EHR|MR no\.?|medical records?(?: file)?|patient(?:'s)? (?:id|identifier|record|file|number|no\.?)|patient ?#|chart|"
    r"PID|eHRSS|eHealth|EMPI|UHID|clinic card|"
    r"病歷|病历|病案|病人|患者|門診|门诊|診療卡|诊疗卡|就診卡|就诊卡|就醫卡|健康卡|醫健通|檔案|档案|病厉"
)
_STAY_WORDS = (
    r"HN|hosp(?:ital)?\.?(?: number| no\.?)?|admission|inpatient|in-patient|episode|encounter|case|visit|A&E|AED|SOPD|discharge|"
    r"住院|入院|留院|急症|急診|急诊|個案|个案|就診|就诊|掛號|挂号|出院|床號|醫院|医院"
)
_NUMBER_WORD = r" ?(?:(?:numbers?|num|nos?|nr|id|ref(?:erence)?)\b\.?|#|號碼|号码|編號|编号|號|号)"
# Words of everyday use need `number` or a mark behind them; the others do not.
_RECORD = labelled(_RECORD_WORDS, _VALUE)
_STAY = labelled(rf"HN(?: ?no\.?)?|(?:{_STAY_WORDS}){_NUMBER_WORD}|(?:{_STAY_WORDS}) ?:", _VALUE)
# The United Kingdom's NHS number: ten digits in three groups, the last one a check (modulo 11).
_NHS = re.compile(r"(?<![A-Za-z0-9-])\d{3}([ -])\d{3}\1\d{4}(?![A-Za-z0-9-])")
_HA = re.compile(r"(?<![A-Za-z0-9])(?:HN|AE|SOP|SOPD|IP|OP|DC)[ -]?\d{2}[ -]?\d{5,7}(?:[A-Z]|[ -]?\([0-9A-Z]\)|-?[0-9A-Z])?(?![A-Za-z0-9])")


def find(text: str) -> Iterator[Match]:
    """Yields record and hospital numbers."""
    yield from values(_RECORD, text, "medical_record")
    yield from values(_STAY, text, "hospital_number")
    for found in _NHS.finditer(text):
        digits = [int(c) for c in found.group() if c.isdigit()]
        if (sum(digit * weight for digit, weight in zip(digits, range(10, 0, -1), strict=True))) % 11 == 0:
            yield Match("medical_record", found.start(), found.end(), Certainty.SUM)
    for found in _HA.finditer(text):
        yield Match("hospital_number", found.start(), found.end(), Certainty.LABEL)
