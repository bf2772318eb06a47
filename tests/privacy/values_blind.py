"""Values of the blind set, and the labelled notes they make with the wordings of tests/privacy/wordings_blind.py.

How it was made: by the author of those wordings, who had not read the detector, its lists, its tests or its document and
did not run it. Values come from public generators where there are any (Faker's Chinese, Taiwanese, British, American,
Indian, Pakistani and Indonesian names and addresses, its cards, mainland phones and area codes; NHS numbers, diseases,
drugs and ICD codes from faker-healthcare-provider), otherwise from the public rules: HKID by weights 9..2 modulo 11 with a
blank prefix as 36, mainland identity numbers by ISO 7064 MOD 11-2, cards by Luhn, bank code, branch and number of Hong
Kong's banks. Addresses in Hong Kong are put together from names of real districts and estates, so a flat may not exist.
Every wording is drawn five times: twice plain, then full-width, spaced and mixed-script, with new values each time. One
seed gives one set, on any day: ages are counted from fixed years.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import import_module
from random import Random
from typing import Any

from faker.generator import Generator

from tests.privacy import wordings_blind as wordings

SEED = 20261126
KINDS = (
    "hkid", "mainland_id", "phone_hk", "phone_mainland", "email", "card", "bank_account", "medical_record",
    "hospital_number", "birth_date", "address_zh", "address_en", "name_zh", "name_en",
)  # fmt: skip
VARIANTS = ("plain", "plain", "full_width", "spaced", "mixed")
CLEAN_DRAWS = 3


@dataclass(frozen=True, slots=True)
class Note:
    """One text with its identifiers: `spans` are (start, end, kind), `plain` the values before the variant changed them."""

    text: str
    spans: tuple[tuple[int, int, str], ...]
    plain: tuple[str, ...]
    language: str
    variant: str
    template: str


@dataclass(frozen=True, slots=True)
class Source:
    """The generators that one set is drawn from, all seeded alike."""

    rng: Random
    fakes: dict[str, Any]

    def digits(self, count: int) -> str:
        return "".join(self.rng.choices("0123456789", k=count))

    def number(self, count: int) -> str:
        return self.rng.choice("123456789") + self.digits(count - 1)

    def shape(self, *shapes: str) -> str:
        """Returns one of the shapes with a digit for each `#`, a letter for each `?` and a two-digit year for each `%`."""
        shape = self.rng.choice(shapes)
        draw = {"#": lambda: self.digits(1), "?": lambda: self.rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ"), "%": self.year}
        return "".join(draw[char]() if char in draw else char for char in shape)

    def year(self) -> str:
        return f"{self.rng.randint(9, 26):02d}"


def make_source(seed: int) -> Source:
    """Returns seeded generators; single providers, because a whole Faker locale costs a second of import each."""
    names = ("zh_CN", "zh_TW", "en_GB", "en_US", "en_IN", "en_PK", "id_ID")
    fakes: dict[str, Any] = {}
    for name in names:
        fakes[name] = Generator()
        fakes[name].add_provider(import_module(f"faker.providers.person.{name}").Provider)
    for name in ("zh_CN", "zh_TW", "en_GB", "en_US"):
        fakes[name].add_provider(import_module(f"faker.providers.address.{name}").Provider)
    fakes["zh_CN"].add_provider(import_module("faker.providers.phone_number.zh_CN").Provider)
    fakes["en_GB"].add_provider(import_module("faker.providers.credit_card").Provider)
    fakes["en_GB"].add_provider(import_module("faker.providers.internet").Provider)
    fakes["en_GB"].add_provider(import_module("faker.providers.bank.en_GB").Provider)
    fakes["en_GB"].add_provider(import_module("faker_healthcare").HealthcareProvider)
    fakes["zh_CN"].add_provider(import_module("faker_healthcare.zh_CN").Provider)
    for fake in fakes.values():
        fake.seed_instance(seed)
    return Source(Random(seed), fakes)


# Numbers with a check digit


def hkid_check(prefix: str, digits: str) -> str:
    """Returns the check character of an HKID: weights 9..2, letters from A = 10, a missing first letter 36, modulo 11."""
    values = [36 if char == " " else ord(char) - 55 for char in prefix.rjust(2)] + [int(char) for char in digits]
    rest = -sum(weight * value for weight, value in zip(range(9, 1, -1), values, strict=True)) % 11
    return "A" if rest == 10 else str(rest)


def mainland_check(digits: str) -> str:
    """Returns the 18th character of a mainland identity number: ISO 7064 MOD 11-2 over the first seventeen."""
    total = sum(int(char) * pow(2, 17 - place, 11) for place, char in enumerate(digits))
    return "0123456789X"[(1 - total) % 11]


def luhn_check(digits: str) -> str:
    """Returns the digit that completes a card number by Luhn's rule."""
    doubled = [int(char) * (2 if place % 2 == 0 else 1) for place, char in enumerate(reversed(digits))]
    return str(-sum(value // 10 + value % 10 for value in doubled) % 10)


def _hkid(source: Source) -> str:
    prefix = source.rng.choice(("A", "B", "C", "D", "E", "G", "H", "K", "M", "P", "R", "S", "V", "Y", "Z", "F", "WX"))
    digits = source.digits(6)
    check = hkid_check(prefix, digits)
    return source.rng.choice((f"{prefix}{digits}({check})",) * 3 + (f"{prefix}{digits}{check}", f"{prefix}{digits} ({check})"))


def _mainland(source: Source) -> str:
    areas = import_module("faker.providers.ssn.zh_CN").Provider.area_codes
    stem = source.rng.choice(areas) + _birthday(source).strftime("%Y%m%d") + source.digits(3)
    value = stem + mainland_check(stem)
    return value.lower() if source.rng.random() < 0.2 else value


def _card(source: Source) -> str:
    scheme = source.rng.choice(("visa16", "visa16", "mastercard", "amex", "jcb16", "unionpay", "unionpay"))
    if scheme == "unionpay":
        stem = "62" + source.digits(source.rng.choice((13, 16)))
        number = stem + luhn_check(stem)
    else:
        number = source.fakes["en_GB"].credit_card_number(scheme)
    gap = source.rng.choice(("", " ", " ", "-"))
    groups = r"(\d{4})(\d{6})(\d{5})" if len(number) == 15 else r"\d{1,4}"
    found = re.findall(groups, number)
    return gap.join(found[0] if isinstance(found[0], tuple) else found)


# Numbers without one


def _phone_hk(source: Source) -> str:
    first, rest = source.rng.choice("22355666789999"), source.digits(7)
    number = first + rest
    split = f"{number[:4]} {number[4:]}"
    forms = (number, number, split, split, split.replace(" ", "-"), f"+852 {split}", f"(852) {number}", f"852-{number}")
    return source.rng.choice((*forms, f"+852{number}", f"00852 {split}"))


def _phone_mainland(source: Source) -> str:
    number = source.fakes["zh_CN"].phone_number()
    split = (number[:3], number[3:7], number[7:])
    forms = (number, number, " ".join(split), "-".join(split), f"+86 {number}", f"+86 {'-'.join(split)}", f"0086{number}")
    if source.rng.random() < 0.15:
        city, line = source.rng.choice(("0755", "0769", "0756", "020", "021", "010")), source.rng.choice("2345678") + source.digits(7)
        return source.rng.choice((f"{city}-{line}", f"({city}) {line}", f"+86 {city[1:]} {line}"))
    return source.rng.choice(forms)


def _email(source: Source) -> str:
    user = source.fakes["en_GB"].user_name()
    given, family = source.fakes["en_GB"].first_name().lower(), source.rng.choice(SURNAMES)[1].lower()
    users = (user, f"{given}.{family}", f"{family}{given[0]}{source.digits(2)}", f"{given}_{family}{source.digits(4)}", f"{user}+hk")
    hosts = ("gmail.com", "yahoo.com.hk", "hotmail.com", "netvigator.com", "outlook.com", "example.org", "mail.example.edu.hk", "me.com")
    if source.rng.random() < 0.15:
        return f"{source.number(9)}@{source.rng.choice(('qq.com', '163.com', '126.com'))}"
    value = f"{source.rng.choice(users)}@{source.rng.choice(hosts)}"
    return value.capitalize() if source.rng.random() < 0.1 else value


def _account(source: Source) -> str:
    hsbc, hang_seng, boc = ("004-###-######-###", "###-######-###"), ("024-###-######-###", "024-###-######"), "012-###-#-######-#"
    others = ("015-###-##-#####-#", "003-###-#-######-#", "016-###-#######", "###-#-######-#")
    value = source.shape(*hsbc, *hsbc, *hang_seng, boc, boc, *others)
    return value.replace("-", source.rng.choice(("-", "-", "-", " ", "")))


def _iban(source: Source) -> str:
    value = source.fakes["en_GB"].iban()
    return source.rng.choice((value, " ".join(re.findall(r".{1,4}", value))))


def _record(source: Source) -> str:
    return source.shape("########", "#######", "P#######", "MR######", "20%-######", "M%-#####", "OPD/20%/#####", "C######", "00######", "?##-####")


def _hospital(source: Source) -> str:
    return source.shape("HN%######?", "HN%######(#)", "HN %######(#)", "HN%######(?)", "HN%#######", "HN-%-######-#")


def _emergency(source: Source) -> str:
    return source.shape("AE%######?", "AE%######(#)", "AE %######(#)", "AE-%-######", "AE%#######", "AED%######")


def _admission(source: Source) -> str:
    return source.shape("IP%######", "IP%######(#)", "ADM########", "ZY20%#####", "%######", "I-20%-#####", "HN%######?")


# Dates of birth


def _birthday(source: Source) -> date:
    return date(1928, 1, 1) + timedelta(days=source.rng.randrange(96 * 365))


def _numeral(number: int) -> str:
    tens, ones = divmod(number, 10)
    return ("" if tens == 0 else ("十" if tens == 1 else "〇一二三四五六七八九"[tens] + "十")) + ("" if ones == 0 else "〇一二三四五六七八九"[ones])


def _birth_zh(source: Source) -> str:
    day = _birthday(source)
    year = "".join("〇一二三四五六七八九"[int(char)] for char in str(day.year))
    forms = (
        f"{day.year}年{day.month}月{day.day}日", f"{day.year}年{day.month:02d}月{day.day:02d}日", day.isoformat(),
        f"{day:%d/%m/%Y}", f"{day.year}/{day.month}/{day.day}", f"{day:%Y.%m.%d}", f"{day.year}年{day.month}月{day.day}號",
        f"{year}年{_numeral(day.month)}月{_numeral(day.day)}日",
    )  # fmt: skip
    return source.rng.choice(forms)


def _birth_en(source: Source) -> str:
    day = _birthday(source)
    forms = ("%d/%m/%Y", "%d-%m-%Y", "%Y-%m-%d", "%d %b %Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%Y", "%d.%m.%Y", "%d/%m/%y")
    value = day.strftime(source.rng.choice(forms))
    return value.upper() if source.rng.random() < 0.2 else value.lstrip("0")


# Names

SURNAMES = tuple(
    (pair[0], pair[1:])
    for pair in re.findall(
        r"\S+",
        "陳Chan 李Lee 黃Wong 張Cheung 林Lam 何Ho 吳Ng 梁Leung 劉Lau 鄭Cheng 葉Yip 曾Tsang 鄧Tang 馮Fung 蔡Choi 楊Yeung 周Chow 羅Lo "
        "許Hui 譚Tam 郭Kwok 謝Tse 余Yu 潘Poon 麥Mak 蘇So 關Kwan 盧Lo 江Kong 朱Chu 胡Wu 鍾Chung 莫Mok 徐Tsui 石Shek 方Fong 溫Wan 伍Ng 冼Sin 簡Kan",
    )
)
SYLLABLES = re.findall(
    r"\w+",
    "Tai Man Wai Ming Ka Yan Siu Hung Kwok Keung Mei Ling Chi Wing Yuen Fong Lai Kuen Hoi Ching Tsz Kit Pui Shan Sau Ying Yiu "
    "Cheuk Lok Hin Ho Chun Wah Fai Kin Lan Yuk Suk Oi Hang Chak",
)


def _name_hant(source: Source) -> str:
    drawn = source.fakes["zh_TW"].name()
    if source.rng.random() < 0.1:
        return str(source.rng.choice(("歐陽", "司徒", "上官", "諸葛")) + drawn[1:])
    return str(source.rng.choice(SURNAMES)[0] + drawn[1:] if source.rng.random() < 0.6 else drawn)


def _name_hans(source: Source) -> str:
    drawn = source.fakes["zh_CN"].name()
    return str(source.rng.choice(("欧阳", "司马", "皇甫")) + drawn[1:] if source.rng.random() < 0.05 else drawn)


def _name_hk(source: Source) -> str:
    family, (one, two) = source.rng.choice(SURNAMES)[1], source.rng.sample(SYLLABLES, 2)
    west = source.fakes["en_GB"].first_name()
    forms = (
        f"{family.upper()} {one} {two}", f"{family} {one} {two}", f"{family} {one} {two}".upper(), f"{family} {one}-{two.lower()}",
        f"{west} {family}", f"{family.upper()} {one} {two}, {west}", f"{west} {family} {one} {two}", f"{one}-{two.lower()} {family}",
    )  # fmt: skip
    return source.rng.choice(forms)


def _name_foreign(source: Source) -> str:
    fake = source.fakes[source.rng.choice(("en_GB", "en_GB", "en_US", "en_IN", "en_PK", "id_ID"))]
    given, family = fake.first_name(), fake.last_name()
    return source.rng.choice((f"{given} {family}",) * 3 + (f"{given} {source.shape('?.')} {family}", f"{family.upper()} {given}", f"{family}, {given}"))


# Addresses

DISTRICTS = tuple(
    tuple(row.split("/"))
    for row in (
        "九龍觀塘/Kwun Tong, Kowloon", "香港柴灣/Chai Wan, Hong Kong", "新界沙田/Sha Tin, N.T.", "新界屯門/Tuen Mun, New Territories",
        "九龍深水埗/Sham Shui Po, Kowloon", "新界將軍澳/Tseung Kwan O, N.T.", "香港北角/North Point, HK", "新界元朗/Yuen Long, NT",
        "九龍紅磡/Hung Hom, Kowloon", "新界大埔/Tai Po, New Territories", "大嶼山東涌/Tung Chung, Lantau Island", "香港西營盤/Sai Ying Pun",
    )
)  # fmt: skip
STREETS = tuple(
    tuple(row.split("/"))
    for row in (
        "彌敦道/Nathan Road", "英皇道/King's Road", "青山公路/Castle Peak Road", "荔枝角道/Lai Chi Kok Road", "德輔道西/Des Voeux Road West",
        "馬頭圍道/Ma Tau Wai Road", "廣福道/Kwong Fuk Rd", "福華街/Fuk Wa Street", "安寧路/On Ning Road", "翠屏道/Tsui Ping Road",
    )
)
BUILDINGS = tuple(
    tuple(row.split("/"))
    for row in (
        "永德大廈/Wing Tak House", "沙田第一城/City One Shatin", "黃埔花園/Whampoa Garden", "富怡閣/Fu Yee Court", "嘉湖山莊/Kingswood Villas",
        "麗港城/Laguna City", "愛民邨信民樓/Shun Man House, Oi Man Estate", "逸東邨康逸樓/Hong Yat House, Yat Tung Estate", "恒安閣/Hang On Mansion",
    )
)


def _address_hant(source: Source) -> str:
    rng = source.rng
    (district, _), (street, _), (building, _) = rng.choice(DISTRICTS), rng.choice(STREETS), rng.choice(BUILDINGS)
    floor, flat, block = rng.randint(1, 48), rng.choice("ABCDEFGH"), rng.randint(1, 24)
    forms = (
        f"{district}{street}{rng.randint(2, 688)}號{building}{floor}樓{flat}室", f"{district}{building}{block}座{floor}樓{flat}",
        f"{building}{floor:02d}{rng.randint(1, 30):02d}室", f"{district}{street}{rng.randint(2, 300)}號{floor}字樓{flat}座",
        f"{district}坑尾村{rng.randint(2, 300)}號地下", f"{street}{rng.randint(2, 99)}號{floor}/F {flat}室",
    )  # fmt: skip
    return rng.choice(forms)


def _address_taiwan(source: Source) -> str:
    return str(source.fakes["zh_TW"].address()).replace("\n", "").lstrip("0123456789 ")


def _address_hans(source: Source) -> str:
    rng, place = source.rng, str(source.fakes["zh_CN"].address()).rsplit(" ", 1)[0]
    unit = f"{rng.randint(1, 30)}栋{rng.randint(1, 4)}单元{rng.randint(1, 33)}0{rng.randint(1, 8)}室"
    return rng.choice((place + f"{rng.randint(1, 400)}号", place + unit, place + f"{rng.randint(2, 900)}号{unit}"))


def _address_hk(source: Source) -> str:
    rng = source.rng
    (_, district), (_, street), (_, building) = rng.choice(DISTRICTS), rng.choice(STREETS), rng.choice(BUILDINGS)
    floor, flat, house = rng.randint(1, 48), rng.choice("ABCDEFGH"), rng.randint(2, 688)
    forms = (
        f"Flat {flat}, {floor}/F, {building}, {house} {street}, {district}", f"Room {floor}{rng.randint(1, 30):02d}, {building}, {district}",
        f"{flat}{rng.randint(1, 9)}, {floor}/F, Block {rng.randint(1, 24)}, {building}, {district}", f"{house} {street}, {floor}/F, {district}",
        f"Flat {flat} {floor}/F Tower {rng.randint(1, 9)} {building} {district}", f"No. {house}, Hang Mei Tsuen, {district}",
        f"RM {floor}{rng.randint(1, 30):02d} {building} {house} {street} {district}".upper(),
    )  # fmt: skip
    return rng.choice(forms)


def _address_foreign(source: Source) -> str:
    return str(source.fakes[source.rng.choice(("en_GB", "en_GB", "en_US"))].address()).replace("\n", ", ")


# Words and numbers that identify nobody


def _serial(source: Source) -> str:
    letter, digits, check = source.shape("?"), source.digits(6), source.digits(1)
    return _serial(source) if hkid_check(letter, digits) == check else f"{letter}{digits}({check})"


def _unlucky(source: Source, count: int, check: Callable[[str], str], prefix: str = "") -> str:
    value = prefix + source.number(count - len(prefix))
    return _unlucky(source, count, check, prefix) if check(value[:-1]) == value[-1] else value


def _visit(source: Source) -> date:
    return date(2022, 1, 1) + timedelta(days=source.rng.randrange(1700))


FILLERS: dict[str, Callable[[Source], str]] = {
    "datez": lambda s: re.sub(r"(年|月)0", r"\1", _visit(s).strftime("%Y年%m月%d日")),
    "datee": lambda s: _visit(s).strftime(s.rng.choice(("%d %b %Y", "%d/%m/%Y", "%d %B %Y"))),
    "time": lambda s: f"{s.rng.randint(8, 20)}:{s.rng.choice(('00', '15', '30', '45'))}",
    "amt": lambda s: f"{s.rng.randint(300, 99999):,}.{s.digits(2)}",
    "icd": lambda s: str(s.fakes["en_GB"].icd10_code()),
    "drug": lambda s: str(s.fakes["en_GB"].generic_drug()),
    "dise": lambda s: str(s.fakes["en_GB"].disease()),
    "disc": lambda s: str(s.fakes["zh_CN"].disease()),
    "serial": _serial,
    "track": lambda s: " ".join(re.findall(r"\d{4}", _unlucky(s, 16, luhn_check))),
    "bad18": lambda s: _unlucky(s, 18, mainland_check),
    "d13": lambda s: _unlucky(s, 13, luhn_check, "489"),
    **{f"d{count}": lambda s, count=count: s.number(count) for count in range(1, 9)},
}
SLOTS: dict[str, tuple[str, Callable[[Source], str]]] = {
    "hkid": ("hkid", _hkid),
    "id18": ("mainland_id", _mainland),
    "tel": ("phone_hk", _phone_hk),
    "mob": ("phone_mainland", _phone_mainland),
    "email": ("email", _email),
    "card": ("card", _card),
    "acct": ("bank_account", _account),
    "iban": ("bank_account", _iban),
    "mrn": ("medical_record", _record),
    "nhs": ("medical_record", lambda s: str(s.fakes["en_GB"].nhs_number())),
    "hn": ("hospital_number", _hospital),
    "ae": ("hospital_number", _emergency),
    "adm": ("hospital_number", _admission),
    "dobz": ("birth_date", _birth_zh),
    "dobe": ("birth_date", _birth_en),
    "addrt": ("address_zh", _address_hant),
    "addrw": ("address_zh", _address_taiwan),
    "addrc": ("address_zh", _address_hans),
    "addren": ("address_en", _address_hk),
    "addruk": ("address_en", _address_foreign),
    "namet": ("name_zh", _name_hant),
    "namec": ("name_zh", _name_hans),
    "nameen": ("name_en", _name_hk),
    "namefo": ("name_en", _name_foreign),
}

# Variants of writing

LOOKALIKES = dict(zip("ABCEHIKMOPTXaceiopxyv", "АВСЕНІКМОРТХасеіорхуν", strict=True))
SCRIPTS = (
    "陳陈張张黃黄劉刘吳吴楊杨趙赵葉叶鄭郑謝谢許许馮冯鄧邓蕭萧羅罗蔣蒋韓韩國国華华麗丽偉伟強强軍军濤涛龍龙鳳凤蘭兰雲云蓮莲鵬鹏潔洁慶庆靜静紅红瑩莹賢贤銘铭錦锦駿骏榮荣穎颖"
    "億亿東东區区灣湾號号樓楼層层縣县馬马閣阁廣广豐丰橋桥貴贵遼辽寧宁蘇苏內内門门澤泽陽阳麥麦關关盧卢鍾钟溫温簡简譚谭歐欧諸诸單单棟栋圍围輔辅將将興兴齊齐詩诗"
)
SWAPS = {one: two for one, two in zip(SCRIPTS[::2], SCRIPTS[1::2], strict=True) if one != two}
KANGXI = {unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0x2F00, 0x2FD6)}
_OTHER_SCRIPT = {**KANGXI, **SWAPS, **{two: one for one, two in SWAPS.items()}}


def full_width(value: str, kind: str) -> str:
    """Returns the value in full-width characters; a Chinese name, which has none, padded as forms pad it."""
    if kind == "name_zh":
        return "\u3000".join(value)
    return "".join("\u3000" if char == " " else chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in value)


def spaced(value: str, kind: str, rng: Random) -> str:
    """Returns the value with gaps where a typist, a form or a PDF puts them."""
    gap = rng.choice((" ", " ", " ", "\u00a0", "\u2009", "\u3000", "  "))
    if kind == "name_zh":
        return gap.join(value)
    if kind in ("name_en", "address_en"):
        return value.replace(" ", "  " if gap == " " else gap)
    if kind == "email":
        return re.sub(r"([@.])", rf"{gap}\1{gap}", value)
    if kind in ("birth_date", "address_zh"):
        return re.sub(r"(?<=\d)(?=\D)|(?<=\D)(?=\d)", gap, value)
    tokens = re.findall(rf"[A-Za-z]+|\d{{1,{rng.randint(1, 4)}}}|[^\w\s-]", value)
    return gap.join(tokens)


def mixed(value: str, kind: str, rng: Random) -> str:
    """Returns the value with some characters full-width, Cyrillic or Greek look-alikes, or in the other Chinese script."""

    def one(char: str) -> str:
        if char in LOOKALIKES and rng.random() < 0.4:
            return LOOKALIKES[char]
        if char.isascii() and char.isalnum() and rng.random() < 0.4:
            return full_width(char, kind)
        return _OTHER_SCRIPT[char] if char in _OTHER_SCRIPT and rng.random() < 0.7 else char

    return "".join(one(char) for char in value)


def _written(source: Source, slot: str, variant: str) -> tuple[str, str]:
    """Returns a value as drawn and as the variant writes it; drawn again where the variant cannot change it."""
    kind, draw = SLOTS[slot]
    while True:
        plain = draw(source)
        match variant:
            case "full_width":
                value = full_width(plain, kind)
            case "spaced":
                value = spaced(plain, kind, source.rng)
            case "mixed":
                value = mixed(plain, kind, source.rng)
            case _:
                return plain, plain
        if value != plain:
            return plain, value


# Notes


def _fill(source: Source, wording: str, variant: str) -> tuple[str, tuple[tuple[int, int, str], ...], tuple[str, ...]]:
    """Returns the wording with its slots filled, the spans of its identifiers and their values before the variant."""
    text, spans, plains, end = "", [], [], 0
    repeated: dict[str, tuple[str, str]] = {}
    for slot in re.finditer(r"\{([a-z]+\d*)(?::([a-z]))?\}", wording):
        text += wording[end : slot.start()]
        end = slot.end()
        if slot[1] in FILLERS:
            text += FILLERS[slot[1]](source)
            continue
        plain, value = repeated.get(slot[2]) or _written(source, slot[1], variant)
        if slot[2]:
            repeated[slot[2]] = plain, value
        spans.append((len(text), len(text) + len(value), SLOTS[slot[1]][0]))
        plains.append(plain)
        text += value
    return text + wording[end:], tuple(spans), tuple(plains)


def templates() -> Iterator[tuple[str, str, str]]:
    """Yields (template id, language, wording) of every wording with identifiers."""
    groups = (("traditional", "zh", wordings.TRADITIONAL), ("simplified", "zh", wordings.SIMPLIFIED))
    for group, language, registers in (*groups, ("english", "en", wordings.ENGLISH), ("mixed", "mixed", wordings.MIXED)):
        for register, texts in registers.items():
            yield from ((f"{group}-{register}-{place}", language, text) for place, text in enumerate(texts, 1))


def notes(seed: int = SEED) -> list[Note]:
    """Returns the labelled notes: each wording five times, see VARIANTS."""
    source = make_source(seed)
    found = []
    for variant in VARIANTS:
        for template, language, wording in templates():
            text, spans, plain = _fill(source, wording, variant)
            found.append(Note(text, spans, plain, language, variant, template))
    return found


def clean(seed: int = SEED) -> list[Note]:
    """Returns sentences of the same registers without any person's identifier; equal ones are given once."""
    source = make_source(seed + 1)
    found = {}
    for _ in range(CLEAN_DRAWS):
        for group, texts in wordings.CLEAN.items():
            for place, wording in enumerate(texts, 1):
                text = _fill(source, wording, "plain")[0]
                language = {"english": "en", "mixed": "mixed"}.get(group, "zh")
                found.setdefault(text, Note(text, (), (), language, "plain", f"clean-{group}-{place}"))
    return list(found.values())
