"""Sentences held apart: written before the rules were last changed, scored once after, and no rule was changed to suit them.

English ones are joined by templates of Microsoft's presidio-evaluator (MIT), which another author wrote for other detectors.
"""

from __future__ import annotations

import re
from pathlib import Path

from data_pipelines.corpora.packages import fetch

APART: dict[str, dict[str, list[str]]] = {
    "hkid": {
        "zh": ["請出示{}正本以便登記", "陪診者為病人配偶，持{}", "領藥人身份核對：{} ✓", "院友（{}）今早跌倒", "你幫我check下{}有冇預約", "同意書由{}簽署"],
        "en": ["Lab report for {} faxed to ward", "{} - DNACPR discussed", "Please quote {} in all correspondence", "booking under {} cancelled", "sticker on the file reads {}"],
    },
    "mainland_id": {
        "zh": ["跨境转院，居民身份{}已登记", "受检者{}，标本已送检", "病人持{}辦理入院", "系统显示{}重复建档", "医保结算凭{}办理"],
        "en": ["PRC resident {} referred from Shenzhen", "claimant {} submitted receipts", "copy of {} kept in file", "e-channel record {}", "authorised person: {}"],
    },
    "phone_hk": {
        "zh": ["有事搵佢個仔，{}", "留低咗{}俾護士", "改期請電{}", "院舍直線{}", "佢新number係{}呀"],
        "en": ["callback {} (husband)", "no reply at {} x2", "OAH direct line {}", "text the carer on {}", "fax results to {}"],
    },
    "phone_mainland": {
        "zh": ["家属{}，请术前通知", "国内号码{}停机", "北上覆診後聯絡{}", "预留{}接收验证码", "担保人（{}）已知情"],
        "en": ["mainland number {} switched off", "family in Foshan: {}", "roaming on {}", "teleconsult link sent to {}", "interpreter can be reached via {}"],
    },
    "email": {
        "zh": ["化驗結果寄{}", "请回复至{}", "個案經理：{}", "zoom link已send {}", "家屬登記{}收通知"],
        "en": ["bounced from {}", "Corresponding author: {}", "MDT invite -> {}", "portal account {}", "write to {} if unsure"],
    },
    "card": {
        "zh": ["自費藥費由{}扣除", "佢俾咗張{}我哋入數", "退款至原卡{}", "按金經{}收取", "萬事達{}被拒"],
        "en": ["payment authorised, {}", "please debit {}", "card on file: {}", "MC {} expired", "drug fee settled with {}"],
    },
    "bank_account": {
        "zh": ["綜援過數到{}戶口", "轉數入中銀{}", "醫療券退款請入：{}", "开户行工行，卡折号{}", "供款由{}扣數"],
        "en": ["deposit slip shows {}", "bank details: {}", "reimburse into {}", "standing order from acct no {}", "beneficiary account number is {}"],
    },
    "medical_record": {
        "zh": ["排版紙右上角病歷編號係{}", "影像系统检索号{}", "舊症，牌號{}", "病人編碼 {} 已合併", "调阅病历{}", "覆診卡no. {}"],
        "en": ["file no {} requested from store", "Pt. No. {}", "record {} locked", "EPR ID {} opened", "hospital MR# {}", "dup record, keep {}"],
    },
    "hospital_number": {
        "zh": ["住院登記{}已出院", "急診號{}分流三級", "今次入院個案號碼係{}", "手術排期 入院號{}", "住院流水{}待結算", "AED編號{}"],
        "en": ["adm no. {} discharged today", "visit ID {} closed", "case no {} under Med B", "ED number {} cat 3", "IP number {} bed 12", "hospitalisation ref {}"],
    },
    "birth_date": {
        "zh": ["出生：{}", "佢{}出世，今年高齡", "病人（生日{}）", "DOB係{}", "新生兒，{}出生，順產"],
        "en": ["Born on {}", "date-of-birth {} confirmed", "birthday {} today", "DOB {} M", "born: {}"],
    },
    "address_zh": {
        "zh": ["社康護士上門，{}", "搬咗去{}住", "家居氧氣送貨：{}", "救護員到{}接病人", "来自{}，务工"],
        "en": ["found collapsed at {}", "deliver O2 to {}", "new flat: {}", "pt stays at {} with maid", "registered address {}"],
    },
    "address_en": {
        "zh": ["社康護士上門 {}", "搬咗去 {} 住", "家居氧氣送貨：{}", "寄信：{}", "佢住 {}"],
        "en": ["found collapsed at {}", "deliver O2 to {}", "new flat: {}", "pt stays at {} with maid", "registered address {}"],
    },
    "name_zh": {
        "zh": ["{}，七十二歲，肺癌第三期", "今早巡房見{}，情緒穩定", "{}的太太要求見醫生", "阿女{}下午會嚟", "主診{}建議加藥", "覆診名單：{}、待定", "由{}代為領藥", "患者{}，因腹痛三天就诊"],
        "en": ["r/v {} in clinic", "{} (M/72) ca lung", "informed {} by phone", "re {}: results normal", "son {} agreed", "Discussed with {}, wife"],
    },
    "name_en": {
        "zh": ["{}，七十二歲，肺癌", "今早巡房見 {}，穩定", "{} 嘅太太要求見醫生", "同 {} 開會", "社工 {} 跟進"],
        "en": ["r/v {} in clinic", "{} (M/72) ca lung", "informed {} by phone", "{} is a 54 year old lady", "MSW {} following", "Copy to: {}", "{} called to reschedule"],
    },
}
_KIND_OF = {"name": "name_en", "person": "name_en", "name_male": "name_en", "name_female": "name_en", "phone_number": "phone_hk"}
_KIND_OF |= {"email": "email", "credit_card_number": "card", "iban": "bank_account", "date_of_birth": "birth_date", "address": "address_en"}


def presidio_templates(cache: Path) -> dict[str, list[str]]:
    """Returns kind -> templates with exactly one `{}`: those of presidio-evaluator whose only placeholder is of that kind."""
    folder = fetch("presidio-evaluator", cache) / "presidio_evaluator" / "data_generator" / "raw_data"
    found: dict[str, list[str]] = {}
    for line in (folder / "templates.txt").read_text(encoding="utf-8").splitlines():
        names = re.findall(r"\{\{(\w+)\}\}", line)
        rest = re.sub(r"\{\{\w+\}\}", "", line)
        if len(names) == 1 and names[0] in _KIND_OF and not re.search(r"[{}]", rest):
            found.setdefault(_KIND_OF[names[0]], []).append(re.sub(r"\{\{\w+\}\}", "{}", line.replace("\\n", "\n")))
    return found
