"""Surrogates: what stands in an identifier's place. The same secret gives the same value the same surrogate, anywhere.

A surrogate is an HMAC-SHA256 of kind and value under a key made from the secret by scrypt, written in the form of its kind.
Without the secret nobody can go back or test a guess; with it, whoever knows a value can find its surrogate, as intended.
A date of birth becomes 1 January of its year: an age can still be learned, and it stays itself when masked again.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from functools import lru_cache

from data_pipelines.privacy.identity_cards import hkid_check, mainland_check
from data_pipelines.privacy.normalise import bare, canonical

_GIVEN = (
    "安柏晨德恩方風谷光海和恆弘華佳嘉健傑景君康可樂麗良林琳嶺龍美敏明木念寧平奇謙青清秋泉仁榮柔瑞森山善詩樹思松泰天庭同維文"
    "希賢祥曉欣信興秀雪雅妍陽揚野怡宜逸英永友宇雨玉元遠月悅雲澤展昭哲真正之知志中竹子宗"
)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]


class Surrogates:
    """Gives surrogates under one key.

    Args:
        key: from `derive_key`; it stays in memory and is part of no text.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._of = lru_cache(maxsize=1 << 16)(self._make)

    def __reduce__(self) -> tuple[type[Surrogates], tuple[bytes]]:
        return Surrogates, (self._key,)

    def of(self, kind: str, value: str) -> str:
        """Returns the surrogate of a value as it stands in a text."""
        if kind == "birth_date":
            return _first_of_year(value)
        return self._of(kind, identity_of(kind, value))

    def group(self, value: str) -> int:
        """Returns a signed 64-bit number for a group's name that cannot be found by trying names."""
        return int.from_bytes(self._digest("group", value)[:8], "little", signed=True)

    def identity(self) -> str:
        """Returns 32 hex digits that tell one secret from another: part of the name of what was masked with it."""
        return self._digest("store", "").hex()[:32]

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.digest(self._key, f"{kind}\0{value}".encode("utf-8", "surrogatepass"), "sha256")

    def _make(self, kind: str, value: str) -> str:
        number = int.from_bytes(self._digest(kind, value), "little")
        return _FORMS[kind](number, value)


def identity_of(kind: str, value: str) -> str:
    """Returns what all spellings of one value share: grouping, case, width, country code and check digit left out."""
    if kind == "email":
        return re.sub(r"\((at|dot)\)", lambda word: "@" if word.group(1) == "at" else ".", canonical(value))
    plain = bare(value)
    if kind == "hkid" and (body := re.match(r"[a-z]{1,2}\d{6}", plain)):
        return body.group()
    if kind == "phone_hk":
        return plain[-8:]
    return plain[-11:].lstrip("0") if kind == "phone_mainland" else plain


def derive_key(secret: bytes) -> bytes:
    """Returns the key of a secret; slow on purpose (scrypt, 16 MiB), so that a weak secret is not tried quickly."""
    return hashlib.scrypt(secret, salt=b"aisc privacy 1", n=1 << 14, r=8, p=1, dklen=32)


def _digits(number: int, count: int) -> str:
    return f"{number % 10**count:0{count}}"


def _hkid(number: int, _: str) -> str:
    body = f"Z{chr(65 + number % 26)}{_digits(number // 26, 6)}"
    right = "0123456789A".index(hkid_check(body))
    return f"{body}({'0123456789A'[(right + 5) % 11]})"


def _mainland_id(number: int, value: str) -> str:
    year = value[6:10] if len(value) == 18 and value[6:8] in ("18", "19", "20") else "1900"
    body = f"99{_digits(number, 4)}{year}0101{_digits(number // 10**4, 3)}"
    right = "0123456789X".index(mainland_check(body))
    return f"{body}{'0123456789X'[(right + 5) % 11]}"


def _email(number: int, _: str) -> str:
    return f"user{''.join(_ALPHABET[number >> 5 * i & 31] for i in range(16))}@example.invalid"


def _card(number: int, _: str) -> str:
    digits = "0" + _digits(number, 15)
    return " ".join(digits[i : i + 4] for i in range(0, 16, 4))


def _name_zh(number: int, _: str) -> str:
    size = len(_GIVEN)
    return "某" + "".join(_GIVEN[number // size**i % size] for i in range(3))


def _name_en(number: int, _: str) -> str:
    return "Anon " + "".join(_SYLLABLES[number // 80**i % 80] for i in range(5)).capitalize()


def _first_of_year(value: str) -> str:
    """Returns the date with day and month 1 in the form YYYY-01-01; the year is kept, unknown ones become 1900."""
    folded = canonical(value)
    taiwan = re.search(r"民[國国](\d{1,3})年", folded)
    han = re.match(r"([〇零一二三四五六七八九]{4})年", folded)
    plain = re.search(r"(?<!\d)(?:18|19|20)\d\d", folded)
    short = re.search(r"(\d\d)$", folded)
    if taiwan:
        year = 1911 + int(taiwan.group(1))
    elif han:
        year = int("".join(str("〇一二三四五六七八九".find(c.replace("零", "〇"))) for c in han.group(1)))
    elif plain:
        year = int(plain.group())
    else:
        year = 1900 + int(short.group(1)) if short else 1900
    return f"{year}-01-01"


_FORMS: dict[str, Callable[[int, str], str]] = {
    "hkid": _hkid,
    "mainland_id": _mainland_id,
    "phone_hk": lambda number, _: f"1{_digits(number, 3)} {_digits(number // 1000, 4)}",
    "phone_mainland": lambda number, _: f"10{_digits(number, 9)}",
    "email": _email,
    "card": _card,
    "bank_account": lambda number, _: f"000-{_digits(number, 12)}",
    "medical_record": lambda number, _: f"ZZM-{_digits(number, 10)}",
    "hospital_number": lambda number, _: f"ZZH-{_digits(number, 10)}",
    "address_zh": lambda number, _: f"某區某街{_digits(number, 10)}號",
    "address_en": lambda number, _: f"{_digits(number, 10)} Anon Road",
    "name_zh": _name_zh,
    "name_en": _name_en,
}
