"""Medical record numbers (a person's file) and hospital numbers (a stay, a visit): by their word, or by HA's prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.labels import labelled, values

_VALUE = r"(?:[A-Z]{1,6}[ ./-]{0,2})?\d(?:[ -]?[0-9A-Z/]){3,15}(?:[ ]?\([0-9A-Z]\))?(?![A-Za-z0-9])"
_RECORD_WORDS = (
    r"MRN|M\.R\.N\.?|MR no\.?|medical records?(?: file)?|patient(?:'s)? (?:id|identifier|record|file|number|no\.?)|patient ?#|chart|"
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
# A number long enough to be no count and no date may stand right behind an everyday word for a stay or a file.
_LONG = r"(?!(?:19|20)\d\d[-/.]?[01]\d[-/.]?[0-3]\d(?!\d))(?!\d{1,2}-\d{1,2}-\d{4})(?:[A-Z]{1,4}[ -]?)?\d(?:[ -]?\d){5,13}(?: ?\([0-9A-Z]\))?[A-Z]?(?![A-Za-z0-9])"
_STAY_EN = (
    r"(?:admission|adm|inpatient|in-patient|outpatient|out-patient|IP|OP|episode|encounter|visit|attendance|A&E|AED?|ED|case|hosp(?:ital)?"
    r"|hospitali[sz]ation|stay|registration|triage)\.?(?: (?:attendance|episode|registration|visit|case|numbers?|num|nos?|id|ref(?:erence)?|code)\b\.?)*"
)
_STAY_ZH = (
    r"(?:住院|入院|留院|出院|急症室?|急診室?|急诊室?|就診|就诊|掛號|挂号|門急診|个案|個案|登記|登记|流水|牌板|牌版|床頭牌)"
    r"(?:登記|登记|流水|個案|个案|病歷|病历|牌板|紀錄|记录|單|单)*"
)
_RECORD_EN = (
    r"(?:(?:unit|hospital|patient|medical|health|clinic|clinical|old|paper|master|electronic|pt)\.? )?"
    r"(?:records?|notes|file|folder|charts?|MR|EMR|EHR|EPR|HRN)\.?(?: (?:numbers?|num|nos?|id|ref(?:erence)?|under|filed under)\b\.?)*"
)
_RECORD_ZH = (
    r"(?:(?:電子|电子|紙本|旧|舊)?(?:病歷|病历|病案|檔案|档案|牌)|病人(?:編號|号码|號碼|编码|編碼)|(?:覆診|复诊|診症|診療|诊疗|就診|就诊|門診|门诊|預約)[咭卡紙]|影像號?)"
    r"(?:上面?|入面|右上角|面|嘅|的)*(?:寫住|寫著|写着|印住|印着|顯示|显示|標示)?(?:嘅|的|係|是)?"
)
_LONG_STAY = labelled(rf"{_STAY_EN}|{_STAY_ZH}", _LONG)
_LONG_RECORD = labelled(rf"{_RECORD_EN}|{_RECORD_ZH}", rf"{_LONG}|\d\d-\d\d-\d\d(?![0-9-])")
_HA = re.compile(r"(?<![A-Za-z0-9])(?:HN|AE|SOP|SOPD|IP|OP|DC)[ -]?\d{2}[ -]?\d{5,7}(?:[A-Z]|\(?[0-9A-Z]\)?)?(?![A-Za-z0-9])")


def find(text: str) -> Iterator[Match]:
    """Yields record and hospital numbers."""
    yield from values(_RECORD, text, "medical_record")
    yield from values(_STAY, text, "hospital_number")
    # An everyday word is less than a check digit: `file A1234567` may be an identity card.
    yield from values(_LONG_RECORD, text, "medical_record", Certainty.SUM)
    yield from values(_LONG_STAY, text, "hospital_number", Certainty.SUM)
    for found in _HA.finditer(text):
        yield Match("hospital_number", found.start(), found.end(), Certainty.LABEL)
