"""Payment cards (ISO/IEC 7812, Luhn's sum) and bank accounts (by their word, Hong Kong's grouping, or IBAN)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match
from data_pipelines.privacy.labels import labelled, values

_CARD = re.compile(r"(?<![A-Za-z0-9])(?<!\d[-.])[2-6](?:[ -]{0,3}\d){12,18}(?![A-Za-z0-9])(?!-\d)")
_ACCOUNT_WORDS = (
    r"(?:bank |savings? |current |payroll |HSBC |BOC |Hang Seng )?(?:account|acct|a/c|acc)|"
    r"(?:銀行|银行|儲蓄|储蓄|往來|收款|滙豐|恒生|中銀)?(?:戶口|户口|帳戶|账户|賬戶|帐户|帳號|账号|賬號|帐号)"
)
_ACCOUNT = labelled(_ACCOUNT_WORDS, r"(?<!\d)\d(?:[ -]{0,3}\d){7,20}(?![A-Za-z0-9])")
# Words of paying in or out: what they name is an account where it is too long for a telephone.
_PAID_WORDS = (
    r"(?:auto-?pay|wired?|transfer(?:red)?|remit(?:ted)?|deposit(?:ed)?|refund(?:ed)?|reimburse(?:d)?|pay(?:able)?|paid|credit(?:ed)?|direct debit|"
    r"standing order|payroll|payment|bank)(?: (?:to|into|from|out of|via|the|his|her|account|no\.?|number))*|"
    r"(?:過數|过数|轉賬|轉帳|转账|轉數快?|匯款|汇款|匯入|汇入|入數|入账|入帳|入賬|存入|轉入|转入|退款|退回|打款|扣數|收款|開戶|开户)(?:[去到至入俾給给]|予|往|戶口|账户)*"
)
_BANKS = r"(?: ?(?:HSBC|BOC|BEA|ICBC|CCB|SCB|Hang Seng|DBS|Citi(?:bank)?|滙豐|恒生|中銀|中行|工行|建行|農行|农行|招行|渣打|東亞|花旗|銀行|银行)(?:銀行|银行)? ?)?"
_PAID = re.compile(
    rf"(?:(?<![A-Za-z])(?:{_PAID_WORDS})){_BANKS}[ ]{{0,2}}(?:\(|:|-|#|no\.?|account|a/c|號碼?|账号)?[ ]{{0,2}}(?P<value>(?<!\d)\d(?:[ -]{{0,3}}\d){{8,13}})(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"(?<![A-Za-z0-9-])\d{3}-(?:\d{3}-\d{6}|\d{6}-\d{3}|\d{1,3}-\d{6}-\d{1,3}|\d{3}-\d{1}-\d{6})(?:-\d{1,3})?(?![A-Za-z0-9-])")
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
    for found in _PAID.finditer(text):
        yield Match("bank_account", found.start("value"), found.end("value"), Certainty.SUM)
    for found in _GROUPED.finditer(text):
        yield Match("bank_account", found.start(), found.end(), Certainty.SHAPE)
    for found in _IBAN.finditer(text):
        value = "".join(c for c in found.group() if c.isalnum())
        number = "".join(str(int(c, 36)) for c in value[4:] + value[:4])
        if int(number) % 97 == 1:
            yield Match("bank_account", found.start(), found.end(), Certainty.IDENTITY)
