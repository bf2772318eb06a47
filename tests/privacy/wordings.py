"""Sentences around an identifier `{}`. OWN: as the rules' author thinks of them. TUNED: written after the rules were first
finished, as notes, letters, messages and forms put it; what was missed in them led to the rules of today (docs/privacy.md).
"""

from __future__ import annotations

OWN: dict[str, dict[str, list[str]]] = {
    "hkid": {"zh": ["病人身份證號碼 {}，已核對。", "身份證：{}"], "en": ["HKID: {}.", "Patient HKID {} was verified."]},
    "mainland_id": {"zh": ["身份证号码：{}。", "持内地身份證 {} 登記。"], "en": ["ID card no.: {}", "Mainland ID {} presented."]},
    "phone_hk": {"zh": ["電話：{}。", "聯絡電話 {}"], "en": ["Tel: {}", "Please call {} after 5pm."]},
    "phone_mainland": {"zh": ["手机：{}", "內地電話 {}。"], "en": ["Mobile: {}", "Phone {} (China)."]},
    "email": {"zh": ["電郵：{}", "請電郵至{}查詢。"], "en": ["Email: {}", "Send it to {} please."]},
    "card": {"zh": ["信用卡號碼：{}", "信用卡 {} 已扣款。"], "en": ["Card number: {}", "Paid with card {}."]},
    "bank_account": {"zh": ["銀行戶口：{}", "账号 {}"], "en": ["Bank account no. {}", "A/C: {}"]},
    "medical_record": {"zh": ["病歷號碼：{}", "病历号 {}"], "en": ["MRN: {}", "Patient ID {}"]},
    "hospital_number": {"zh": ["住院號：{}", "入院編號 {}"], "en": ["HN: {}", "Admission no. {}"]},
    "birth_date": {"zh": ["出生日期：{}", "{}出生"], "en": ["DOB: {}", "Date of birth {}"]},
    "address_zh": {"zh": ["地址：{}", "住在{}。"], "en": ["Address: {}", "Lives at {}."]},
    "address_en": {"zh": ["地址：{}", "住址 {}。"], "en": ["Address: {}", "Lives at {}."]},
    "name_zh": {"zh": ["姓名：{}", "病人{}，男，65歲。", "{}醫生轉介。"], "en": ["Name: {}", "Patient {} was admitted."]},
    "name_en": {"zh": ["姓名：{}", "病人 {} 入院。"], "en": ["Patient name: {}", "Mr {} was admitted.", "Seen by Dr {}."]},
}
TUNED: dict[str, dict[str, list[str]]] = {
    "hkid": {
        "zh": ["佢張身份證係{}嚟㗎", "核實身分（{}）後發藥", "申請人（香港居民，{}）同意參與研究", "登記資料：{}／女／54歲", "你份表填{}啱唔啱？"],
        "en": ["Pt ({}) consented to biopsy", "Re: {} - oncology follow up", "holder of {} attended the clinic today", "pls bring your card {} tmr", "identity verified against {} at triage"],
    },
    "mainland_id": {
        "zh": ["患者证件{}，由家属代办。", "参保人{}报销申请", "內地來港病人，證號{}", "核验：{}，一致", "他的号码是{}请登记"],
        "en": ["cross-border patient, document {}", "Resident identity {} scanned at registration", "insured person {} claim form", "RIC {} on file", "travelled on {}"],
    },
    "phone_hk": {
        "zh": ["覆診前打{}搵我", "佢WhatsApp係{}", "女兒電話{}，夜晚先得閒", "如有查詢請致電{}與護士聯絡", "緊急聯絡人：太太，{}"],
        "en": ["daughter can be reached on {} in the evening", "NOK: wife, {}", "pager off, ring {} instead", "left voicemail {} no answer", "whatsapp me at {}"],
    },
    "phone_mainland": {
        "zh": ["微信同号{}", "联系家属（{}）未接听", "返內地後用{}聯絡", "请拨打{}预约", "儿子在深圳，{}"],
        "en": ["son in Shenzhen, {}", "WeChat tied to {}", "we rang {} twice", "contact in Guangzhou {}", "SMS reminder goes to {}"],
    },
    "email": {
        "zh": ["報告send去{}就得", "请把影像发到{}", "抄送{}", "佢個email係{}", "聯絡：{}，謝謝"],
        "en": ["cc {} on the pathology", "reply to {} by Friday", "login {} locked", "she prefers {} over phone", "forwarded from <{}>"],
    },
    "card": {
        "zh": ["用{}找數", "以信用咭{}支付按金", "刷卡{}成功", "扣款咭號{}，到期日另報", "Visa {} 過數"],
        "en": ["charged {} for the deposit", "deposit taken on {} today", "visa ending as per {}", "refund goes back to {}", "PAN {} declined"],
    },
    "bank_account": {
        "zh": ["請過數去{}（滙豐）", "退款存入戶口{}", "我個account number係{}", "汇款至账户{}，谢谢", "自動轉賬：{}"],
        "en": ["refund to savings account {}", "please autopay from {}", "wire to {} (HSBC)", "payee acct {} confirmed", "IBAN/account: {}"],
    },
    "medical_record": {
        "zh": ["檔案編號{}，見舊牌板", "覆診咭上面寫住{}", "病案号{}，已归档", "電子病歷{}已更新", "門診病人編號：{}"],
        "en": ["chart {} pulled", "old notes under {}", "Medical Record Number {} merged", "see MRN# {} for imaging", "unit record {} requested"],
    },
    "hospital_number": {
        "zh": ["今次住院編號{}，6樓病房", "急症室個案{}", "入院登記號{}", "就诊流水号：{}", "牌板號 {} 轉病房"],
        "en": ["Episode number {} closed", "A&E attendance {} triage 3", "inpatient no {} ward 8B", "Hosp. No.: {}", "encounter {} billed"],
    },
    "birth_date": {
        "zh": ["佢係{}出世嘅", "生於{}，廣東人", "病人生日{}", "出生年月日 {}", "（{}生）"],
        "en": ["born {} in Macau", "d.o.b. {}", "Birthdate - {}", "(b. {})", "DOB={} sex=F"],
    },
    "address_zh": {
        "zh": ["藥物請寄{}", "社工家訪{}", "現居{}，與家人同住", "救護車由{}送院", "戶籍：{}"],
        "en": ["discharged home to {}", "home visit at {}", "ambulance from {}", "Correspondence: {}", "his place is {}"],
    },
    "address_en": {
        "zh": ["藥物請寄 {}", "社工家訪 {}", "住 {}，獨居", "覆診信寄去 {}", "通訊地址︰{}"],
        "en": ["discharged home to {}", "he moved to {} last May", "home visit at {}", "Send meds to {} by courier", "address on file is {}"],
    },
    "name_zh": {
        "zh": ["{}今日嚟覆診，精神唔錯", "家姐{}陪同", "已通知{}家人", "多謝{}姑娘幫手", "會診：{}", "根据{}的主诉", "我同{}傾過，佢同意"],
        "en": ["Spoke with {} (daughter)", "{} attended alone", "consent signed by {}", "thank you {}", "{}, 65/M, ca lung"],
    },
    "name_en": {
        "zh": ["{} 今日覆診", "已通知 {} 嘅家人", "主治 {} 話要做化療", "{}，女，48歲", "多謝 {} 幫手"],
        "en": ["{} attended alone", "I discussed the scan with {} today", "thank you {} for the referral", "{}, 65/M, ca lung", "consent signed by {}", "Best wishes,\n{}"],
    },
}
