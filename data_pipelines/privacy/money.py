"""Payment cards (ISO/IEC 7812, Luhn's sum) and bank accounts (by their word, Hong Kong's grouping, or IBAN)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.labels import labelled, values

_CARD = re.compile(r"(?<![A-Za-z0-9])(?<!\d[-.])[2-6](?:[ -]{0,3}\d){12,18}(?![A-Za-z0-9])(?!-\d)")
_ACCOUNT_WORDS = (
    r"(?:bank |savings? |current |payroll |HSBC |BOC |Hang Seng )?(?:account|acct|a/c|acc)|IBAN|"
    r"(?:銀行|银行|儲蓄|储蓄|往來|往来|收款|滙豐|汇丰|恒生|中銀|中银)?(?:戶口|户口|帳戶|账户|賬戶|帐户|帳號|账号|賬號|帐号)"
)
_ACCOUNT = labelled(_ACCOUNT_WORDS, r"(?<!\d)\d(?:[ -]{0,3}\d){7,20}(?![A-Za-z0-9])")
_CARD_WORDS = r"(?:credit|debit|payment|bank) card|visa(?: card)?|master ?card|amex|union ?pay|信用[卡咭]|扣[賬账][卡咭]|提款[卡咭]|銀聯卡|银联卡|銀行卡|银行卡|[卡咭][號号]"
# With the word in front a mistyped card is still somebody's.
_CARD_SAID = labelled(_CARD_WORDS, r"(?<!\d)[2-6](?:[ -]{0,3}\d){14,18}(?![A-Za-z0-9])")
# Bank (3 digits), branch (3), account (6 to 9) in the groupings Hong Kong's banks print.
_GROUPED = re.compile(
    r"(?<![A-Za-z0-9-])(?:(?:0\d\d|[1-9]\d\d)[ -])?\d{3}(?:-\d{6}-\d{3}|-\d-\d{6}|-\d{3}-\d{6}|-\d{6}|-\d{1,3}-\d{6}-\d{1,3}|-\d-\d{6}-\d|-\d{5}-\d)(?:-\d{1,3})?(?![A-Za-z0-9-])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")


def luhn(digits: str) -> bool:
    """True when Luhn's sum of the digits is a multiple of ten."""
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def find(text: str) -> Iterator[Match]:
    """Yields card and account numbers; a card number behind the word for an account is one."""
    for found in _CARD.finditer(text):
        digits = "".join(c for c in found.group() if c.isdigit())
        if luhn(digits) and len(set(digits)) > 1:
            yield Match("card", found.start(), found.end(), Certainty.SUM)
    yield from values(_ACCOUNT, text, "bank_account")
    yield from values(_CARD_SAID, text, "card")
    for found in _GROUPED.finditer(text):
        yield Match("bank_account", found.start(), found.end(), Certainty.SHAPE)
    for found in _IBAN.finditer(text):
        value = "".join(c for c in found.group() if c.isalnum())
        number = "".join(str(int(c, 36)) for c in value[4:] + value[:4])
        if int(number) % 97 == 1:
            yield Match("bank_account", found.start(), found.end(), Certainty.IDENTITY)
