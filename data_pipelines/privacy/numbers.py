"""Long numbers that have no shape of their own: the nearest word says whether it is an account, a record, a stay or a telephone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.births import DATE
from data_pipelines.privacy.context import choices, nearest
from data_pipelines.privacy.kinds import Certainty, Match

PHONE, OTHER = "phone", "other"
# Group -> words. Where two begin at one place the first group that fits is taken: `card number` before `number`.
_WORDS = {
    "hkid": r"(?<![a-z])(?:hk ?id|h\.k\.i\.d|id card|identity)|身份證|身份证|身分證|身分证|證件|证件|通行證|通行证|護照|护照|(?<![a-z])(?:passport|permit)",
    "card": r"(?<![a-z])(?:credit|debit|visa|master ?card|amex|unionpay|pan\b)|信用卡|信用咭|扣賬卡|銀聯|银联|銀行卡|银行卡|刷卡",
    PHONE: (
        r"(?<![a-z])(?:tele?(?:phone)?(?![a-z])|phone|mobile|mob(?![a-z])|cell|call(?:ed|ing)?(?![a-z])|ring|rang|whats ?app|contact|sms|text(?:ed)?(?![a-z])|fax|wechat|"
        r"hotline|reach|pager|page(?![a-z])|line|voicemail|dial|signal|telegram)"
        r"|電話|电话|手機|手机|致電|致电|聯絡|联络|聯繫|联系|傳真|传真|熱線|热线|短訊|短信|來電|来电|打畀|打俾|撥|拨|打去|打|微信|座機|座机|內線|分機"
    ),
    "bank_account": (
        r"(?<![a-z])(?:accounts?(?![a-z])|acct|a/c|acc(?![a-z])|bank|hsbc|boc|bochk|hang seng|bea(?![a-z])|dbs|citi|icbc|ccb|scb(?![a-z])|stan(?:dard )?chart|ocbc|zabank|mox"
        r"|auto-?pay|direct debit|debited|standing order|transfer(?:red)?|remit|deposit|refund|reimburse|payee|beneficiary|payroll|salary|pension|wire|iban|swift"
        r"|passbook|savings?|cheques?|credited|pay(?:able|ment)?(?![a-z])|paid|payout|settle)"
        r"|戶口|户口|帳戶|账户|賬戶|帐户|帳號|账号|賬號|帐号|銀行|银行|滙豐|汇丰|匯豐|恒生|中銀|中银|中行|工行|建行|農行|农行|招行|交行|渣打|東亞|东亚|花旗|星展|大新|永隆|南商|創興"
        r"|過數|过数|過戶|轉賬|轉帳|转账|轉數|匯款|汇款|匯入|汇入|匯到|汇到|入數|入账|入帳|入賬|存摺|存折|存入|存款|轉入|转入|轉到|转到|轉去|退款|退費|退费|退回|報銷|报销|打款|打到|打錢|打钱|扣數|扣款|收款|付款|開戶|开户|"
        r"綜援|綜緩|津貼|津贴|賠償|赔偿|理賠|理赔|儲蓄|储蓄|往來|往来|支票|出糧|薪金|工資|工资|繳費"
    ),
    "medical_record": (
        r"(?<![a-z])(?:mrn|m\.r\.n|mr no|records?(?![a-z])|charts?(?![a-z])|files?(?![a-z])|folder|(?:old|case|clinic(?:al)?|hospital|patient|paper|medical) notes|patient (?:id|number|no|identifier|code)"
        r"|pid(?![a-z])|pmi(?![a-z])|empi|uhid|urn(?![a-z])|hrn|ehr|emr|epr|ehrss|ehealth|nhs|cms|(?:registered|indexed|stored|kept|filed|archived|merged) (?:under|as|with|into)|(?:unit|clinic|hospital|reg(?:istration)?)\.? (?:no|number|card)|wrist ?band|look(?:ed)? up|pull(?:ed)?(?![a-z])|retrieve|pacs(?![a-z])|imaging|x-ray jacket|appointment (?:card|slip)|identifier)"
        r"|病歷|病历|病案|檔案|档案|病人編號|病人号|病人號|患者編號|患者编号|患者号|針咭|針卡|覆診咭|覆診卡|复诊卡|就診卡|就诊卡|診療卡|诊疗卡|醫健通|健康卡|門診號|门诊号|影像|腕帶|腕带|手帶|標籤|标签|歸檔|归档|調閱|调阅|調出|搜尋|系統|系统|登記咭|舊牌"
    ),
    "hospital_number": (
        r"(?<![a-z])(?:hn(?![a-z])|hosp(?:ital)?\.? (?:no|number|num|ref)|admission|adm(?![a-z])|in-?patient|out-?patient|ip(?![a-z])|op(?![a-z])|episode|encounter|visit|attendance|case|"
        r"a&e|aed?(?![a-z])|ed(?![a-z])|stay|hospitali[sz]ation|registration|triage|sopd|gopc?)"
        r"|住院|入院|留院|急症|急診|急诊|就診|就诊|掛號|挂号|個案|个案|登記|登记|流水|床頭|牌板|牌簿|收症|醫院編號|医院编号|醫院號|分流"
    ),
    OTHER: (
        r"\$|¥|€|£|地址|住址|郵寄|(?<![a-z])(?:address|lives|hkd|rmb|usd|cny|ref(?![a-z])|reference|invoice|order|samples?|lab(?![a-z])|specimen|accession|batch|lot(?![a-z])|serial|nct|pmid|doi|isbn|issn|grant|version|code(?![a-z])|policy|receipt|"
        r"barcode|tracking|parcel|build|model|device|udi|protocol|trial|claim|ticket|licen[cs]e|approval|irb|gene|rs(?=\d)|population|total|cells?|count|dose)"
        r"|訂單|订单|單號|单号|批號|批号|金額|金额|發票|发票|收據|收据|快遞|快递|運單|条码|條碼|樣本|样本|標本|标本|檢驗|化驗|化验|保單|保单|序號|序列|型號|型号|版本|文號|批文|備案|郵編|邮编|參考|参考|合共|共計|總數|总数|人口"
    ),
}
_ANY = choices(_WORDS)
# Nothing but a patient near: more likely a record than not, if it looks like nothing else.
_PERSON = choices({"person": r"(?<![a-z])(?:patients?|pts?|case)(?![a-z])|病人|患者|病者|院友"})
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9.,])(?<!\d[-/])(?:[A-Z]{1,5}[ /-]?)?\d(?:[ /-]{0,3}\d|[ /-]?[A-Z]{1,2}[ /-]?(?=\d)){5,20}(?:[A-Z]|[ /-]{0,2}\([0-9A-Z]\)|[ /-][A-Z](?![A-Za-z]))?(?![A-Za-z0-9])(?!\.\d)(?!,\d{3})(?!-\d)"
)
_IS_DATE = re.compile(rf"{DATE}|\d{{1,2}}[-/]\d{{1,2}}|(?:19|20)\d\d[01]\d[0-3]\d ?\d{{2,6}}", re.IGNORECASE)
# Paper files are kept by their last digits, three pairs; a word for a record tells them from dates.
_BY_LAST_DIGITS = re.compile(r"(?<![0-9A-Za-z./-])\d\d-\d\d-\d\d(?![0-9./-])")
_UNIT_BEHIND = re.compile(r" ?(?:元|蚊|人|次|歲|岁|%|mg|ml|mcg|iu|dollars|yuan|cells)", re.IGNORECASE)
# Fewest and most digits of what a word may name from afar; fewer ones need the word right in front (labels.py).
_DIGITS = {"bank_account": (9, 20), "medical_record": (6, 13), "hospital_number": (6, 13)}


def said(text: str, start: int, end: int) -> str | None:
    """Returns what the words around `text[start:end]` call it: a kind, PHONE or OTHER; None when they say nothing."""
    return nearest(_ANY, text, start, end)


def find(text: str) -> Iterator[Match]:
    """Yields the long numbers that a word near them calls an account, a record or a stay."""
    for found in _BY_LAST_DIGITS.finditer(text):
        if said(text, found.start(), found.end()) == "medical_record":
            yield Match("medical_record", found.start(), found.end(), Certainty.CONTEXT)
    for found in _NUMBER.finditer(text):
        value = found.group()
        if _IS_DATE.fullmatch(value) or _UNIT_BEHIND.match(text, found.end()):
            continue
        kind = said(text, found.start(), found.end())
        digits = sum(c.isdigit() for c in value)
        if kind is None and 6 <= digits <= 11 and nearest(_PERSON, text, found.start(), found.end()):
            yield Match("medical_record", found.start(), found.end(), Certainty.SHAPE)
        least, most = _DIGITS.get(kind or "", (1, 0))
        if kind and least <= digits <= most:
            yield Match(kind, found.start(), found.end(), Certainty.CONTEXT)
