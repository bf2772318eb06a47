"""Values of identifiers for the evaluation: `own` ones as the rules' author thinks of them, `foreign` ones from Faker.

Nothing here is imported by or from the detectors; check digits are computed anew.
"""

from __future__ import annotations

import random
import re
import string

from faker import Faker
from faker_healthcare import HealthcareProvider


def _list(text: str, between: str = " ") -> list[str]:
    return text.split(between)

_STREETS_ZH = _list("彌敦道 軒尼詩道 皇后大道東 英皇道 廣東道 荔枝角道 窩打老道 太子道西 青山公路 德輔道中 柴灣道 鴨脷洲大街")
_ESTATES_ZH = _list("沙田第一城 美孚新邨 黃埔花園 杏花邨 彩虹邨 麗港城 將軍澳廣場 大埔中心 屯門市廣場 愛民邨")
_DISTRICTS_ZH = _list("旺角 灣仔 沙田 觀塘 荃灣 北角 深水埗 元朗 大埔 柴灣 油麻地 將軍澳")
_STREETS_EN = _list("Nathan|Hennessy|King's|Canton|Castle Peak|Prince Edward|Waterloo|Des Voeux|Argyle|Jordan|Shanghai|Electric", "|")
_DISTRICTS_EN = _list("Mong Kok|Wan Chai|Sha Tin|Kwun Tong|Tsuen Wan|North Point|Yuen Long|Chai Wan|Happy Valley|Tai Po", "|")
_SURNAMES = _list("陳 黃 李 張 梁 林 何 吳 鄭 周 劉 蔡 歐陽 馮 鄧 司徒")
_GIVEN = _list("志 強 偉 明 美 玲 嘉 欣 家 樂 子 俊 詩 雅 慧 敏 國 華 文 傑")
_ROMAN = _list("Chan Wong Lee Cheung Leung Lam Ho Ng Cheng Chow Lau Choi Yeung Fung Tang Kwok")
_SYLLABLES = _list("Tai Man Wai Ming Ka Yan Siu Chi Keung Kwok Wing Mei Ling Hoi Yee Tsz Ho Kit Fai Shuk")

# Forms of values that only the part held apart has; names come from other locales of Faker.
APART_FORMS = {
    "medical_record": ["???#####", "####/####", "##########-#", "MR########"],
    "hospital_number": ["AE######## (#)", "IP-########", "##-######", "############"],
    "bank_account": ["###-#-######", "#### #### ####", "######-###-######"],
    "name_zh": [],
    "name_en": [],
}


def _is_hkid(value: str) -> bool:
    """True for a letter and seven digits (two letters and seven) whose last one is the check digit of an identity card."""
    if not re.fullmatch(r"[A-Z]{1,2}\d{7}", value):
        return False
    numbers = [36] * (9 - len(value)) + [int(c, 36) for c in value]
    return sum(number * weight for number, weight in zip(numbers, range(9, 0, -1), strict=True)) % 11 == 0


class Values:
    """Draws values of every kind under one seed.

    Args:
        seed: of everything drawn.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.fakers = {name: Faker(name) for name in ("zh_CN", "zh_TW", "en_US", "en_GB", "en_IN", "en_PH", "en_CA")}
        self.fakers["en_GB"].add_provider(HealthcareProvider)
        for number, faker in enumerate(self.fakers.values()):
            faker.seed_instance(seed * 10 + number)

    def value(self, kind: str, language: str, part: str) -> str:
        """Returns a value of `kind`, as it may stand in a text of `language` (zh or en); part is own, tuned or apart."""
        if part == "apart" and kind in APART_FORMS and self.draw.random() < 0.5:
            return self._apart(kind)
        value = str(getattr(self, f"_{kind}")(language, part != "own"))
        # One in eleven of a letter with seven digits is by chance the number of an identity card: nobody can tell them apart.
        return self.value(kind, language, part) if kind in ("medical_record", "hospital_number") and _is_hkid(value) else value

    def _apart(self, kind: str) -> str:
        """Returns a value in a form that no other part has; a third of record numbers are NHS numbers of faker-healthcare."""
        if kind == "medical_record" and self.draw.random() < 0.33:
            return str(self.fakers["en_GB"].nhs_number())
        if kind == "name_en":
            return str(self.fakers[self.draw.choice(["en_IN", "en_PH", "en_CA"])].name())
        if kind == "name_zh":
            return str(self.fakers["zh_CN"].last_name() + self.fakers["zh_TW"].first_name())
        return str(self.fakers["en_US"].bothify(self.draw.choice(APART_FORMS[kind]), letters=string.ascii_uppercase))

    def _digits(self, count: int) -> str:
        return "".join(self.draw.choice(string.digits) for _ in range(count))

    def _hkid(self, language: str, foreign: bool) -> str:
        letters = self.draw.choice(string.ascii_uppercase) + (self.draw.choice(string.ascii_uppercase) if self.draw.random() < 0.2 else "")
        digits = self._digits(6)
        numbers = [10 + string.ascii_uppercase.index(c) for c in letters] + [int(c) for c in digits]
        total = (36 * 9 if len(letters) == 1 else 0) + sum(n * (len(numbers) + 1 - i) for i, n in enumerate(numbers))
        check = next(c for i, c in enumerate("0123456789A") if (total + i) % 11 == 0)
        form = self.draw.choice(["{}{}({})", "{}{}({})", "{}{}{}", "{}{} ({})"] if not foreign else ["{}{}({})", "{} {}({})", "{}{}-{}", "{}{}{}"])
        text = form.format(letters, digits, check)
        return text.lower() if foreign and self.draw.random() < 0.15 else text

    def _mainland_id(self, language: str, foreign: bool) -> str:
        if foreign:
            return self.fakers["zh_CN"].ssn()
        body = f"44{self._digits(4)}{self.draw.randint(1930, 2015)}{self.draw.randint(1, 12):02}{self.draw.randint(1, 28):02}{self._digits(3)}"
        rest = sum(int(digit) * (2 ** (17 - i) % 11) for i, digit in enumerate(body)) % 11
        return body + "10X98765432"[rest]

    def _phone_hk(self, language: str, foreign: bool) -> str:
        a, b = self.draw.choice("235679") + self._digits(3), self._digits(4)
        forms = ["{} {}", "{}{}", "+852 {} {}", "(852) {}{}"] if not foreign else ["{}-{}", "+852-{}{}", "852 {} {}", "+852{}{}", "{} {}", "00852 {}-{}"]
        return self.draw.choice(forms).format(a, b)

    def _phone_mainland(self, language: str, foreign: bool) -> str:
        if foreign:
            return self.fakers["zh_CN"].phone_number()
        if self.draw.random() < 0.25:
            return f"0{self.draw.choice(['10', '20', '755', '21', '769'])}-{self.draw.randint(2, 8)}{self._digits(7)}"
        number = f"1{self.draw.choice('3456789')}{self._digits(9)}"
        return self.draw.choice([number, f"+86 {number}", f"{number[:3]} {number[3:7]} {number[7:]}", f"{number[:3]}-{number[3:7]}-{number[7:]}"])

    def _email(self, language: str, foreign: bool) -> str:
        if foreign:
            faker = self.fakers[self.draw.choice(["en_US", "en_GB", "zh_CN"])]
            return self.draw.choice([faker.ascii_free_email, faker.ascii_company_email, faker.email])()
        return f"{self.draw.choice(_ROMAN).lower()}.{self.draw.choice(_SYLLABLES).lower()}{self._digits(2)}@{self.draw.choice(['ha.org.hk', 'gmail.com', 'yahoo.com.hk', 'hku.hk'])}"

    def _card(self, language: str, foreign: bool) -> str:
        number = self.fakers["en_US"].credit_card_number(card_type=self.draw.choice(["visa16", "mastercard", "amex"] if foreign else ["visa16", "mastercard"]))
        groups = [number[i : i + 4] for i in range(0, len(number), 4)]
        return self.draw.choice([number, " ".join(groups), "-".join(groups)])

    def _bank_account(self, language: str, foreign: bool) -> str:
        if foreign:
            return self.draw.choice([self.fakers["en_GB"].iban(), self._digits(9), f"{self._digits(3)}-{self._digits(6)}-{self._digits(3)}", self._digits(12)])
        return self.draw.choice([f"{self._digits(3)}-{self._digits(6)}-{self._digits(3)}", f"{self._digits(3)}-{self._digits(3)}-{self._digits(6)}", self._digits(12), "62" + self._digits(15)])

    def _medical_record(self, language: str, foreign: bool) -> str:
        forms = ["########", "K#######", "M######"] if not foreign else ["??######", "##-##-##", "?#######", "#######", "??-########", "##########"]
        return self.fakers["en_US"].bothify(self.draw.choice(forms), letters=string.ascii_uppercase)

    def _hospital_number(self, language: str, foreign: bool) -> str:
        if not foreign:
            return self.draw.choice([f"HN{self.draw.randint(10, 26)}{self._digits(6)}({self._digits(1)})", f"HN{self._digits(8)}{self.draw.choice('XYZ')}", self._digits(8)])
        return self.fakers["en_US"].bothify(self.draw.choice(["AE########", "####-#####", "?#########", "ZY########", "HN######## (#)", "########"]), letters="ABCDEFGH")

    def _birth_date(self, language: str, foreign: bool) -> str:
        born = self.fakers["en_US"].date_of_birth(minimum_age=1, maximum_age=98)
        own_zh, own_en = ["%Y年%-m月%-d日", "%Y-%m-%d", "%d/%m/%Y"], ["%Y-%m-%d", "%d/%m/%Y", "%-d %B %Y"]
        foreign_zh, foreign_en = ["%Y年%m月%d日", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d"], ["%d %b %Y", "%B %-d, %Y", "%d-%b-%Y", "%d.%m.%Y", "%d/%m/%y"]
        forms = (foreign_zh if foreign else own_zh) if language == "zh" else (foreign_en if foreign else own_en)
        return born.strftime(self.draw.choice(forms))

    def _address_zh(self, language: str, foreign: bool) -> str:
        if foreign:
            return self.fakers[self.draw.choice(["zh_CN", "zh_CN", "zh_TW"])].address()
        number, floor, flat = self.draw.randint(1, 900), self.draw.randint(1, 45), self.draw.randint(1, 30)
        district = self.draw.choice(_DISTRICTS_ZH)
        if self.draw.random() < 0.5:
            return f"{district}{self.draw.choice(_STREETS_ZH)}{number}號{floor}樓{self.draw.choice('ABCDEF')}室"
        return f"{self.draw.choice(['九龍', '新界', '香港', ''])}{district}{self.draw.choice(_ESTATES_ZH)}{flat}座{floor}樓{self.draw.choice('ABCDEF')}室"

    def _address_en(self, language: str, foreign: bool) -> str:
        floor = self.draw.randint(1, 45)
        if foreign:
            faker = self.fakers["en_GB"]
            district = self.draw.choice(_DISTRICTS_EN)
            return self.draw.choice(
                [
                    f"Room {floor}{self._digits(2)}, {faker.last_name()} House, {faker.last_name()} Estate, {district}, Kowloon",
                    f"{faker.building_number()} {faker.street_name()}, {district}",
                    f"Unit {self.draw.choice('ABCDEFGH')}, {floor}/F, {self.draw.randint(1, 300)} {faker.last_name()} Street, {district}, N.T.",
                    f"Rm {floor}0{self.draw.randint(1, 9)}, Blk {self.draw.choice('ABC')}, {faker.last_name()} Court, {district}",
                    f"{self.draw.randint(1, 30)}/F, {faker.last_name()} Mansion, {self.draw.randint(1, 300)} {faker.last_name()} Rd, {district}, HK",
                ]
            )
        street = f"{self.draw.randint(1, 900)} {self.draw.choice(_STREETS_EN)} Road"
        return f"Flat {self.draw.choice('ABCDEF')}, {floor}/F, {street}, {self.draw.choice(_DISTRICTS_EN)}, Hong Kong"

    def _name_zh(self, language: str, foreign: bool) -> str:
        if foreign:
            return self.fakers[self.draw.choice(["zh_CN", "zh_TW"])].name()
        return self.draw.choice(_SURNAMES) + "".join(self.draw.sample(_GIVEN, self.draw.choice([1, 2, 2, 2])))

    def _name_en(self, language: str, foreign: bool) -> str:
        if foreign:
            faker = self.fakers[self.draw.choice(["en_US", "en_GB"])]
            western = f"{faker.first_name()} {faker.last_name()}"
            romanised = self.fakers["zh_CN"].romanized_name()
            return self.draw.choice([western, romanised, f"{faker.first_name()} {self.draw.choice(_ROMAN)}", western.upper()])
        surname, given = self.draw.choice(_ROMAN), self.draw.sample(_SYLLABLES, 2)
        forms = ["{s} {a} {b}", "{S} {a} {b}", "{s} {a}-{l}", "{a} {b} {s}", "{S}, {a} {b}"]
        return self.draw.choice(forms).format(s=surname, S=surname.upper(), a=given[0], b=given[1], l=given[1].lower())
