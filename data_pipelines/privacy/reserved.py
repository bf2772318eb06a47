"""The shapes that surrogates have and that no real identifier has, so that nobody can be hit and a second pass changes nothing.

Prefixes no authority gives out (identity cards Z?, region 99, bank code 000, telephones 1 and 10), checks that are wrong on
purpose, the domain `.invalid` (RFC 2606), and the words 某 and Anon.
"""

from __future__ import annotations

import re

from data_pipelines.privacy.identity_cards import hkid_check

_SHAPES = re.compile(
    r"(?P<hkid>(?<![A-Z0-9])Z[A-Z]\d{6}\([0-9A]\))"
    r"|(?P<mainland_id>(?<!\d)99\d{15}[0-9X])"
    r"|(?P<phone_hk>(?<!\d)(?<!\d[ -])1\d{3} \d{4}(?![ -]?\d))"
    r"|(?P<phone_mainland>(?<!\d)10\d{9}(?!\d))"
    r"|(?P<email>user[a-z2-7]{16}@example\.invalid)"
    r"|(?P<card>(?<!\d)0\d{3}(?: \d{4}){3}(?!\d))"
    r"|(?P<bank_account>(?<!\d)000-\d{12}(?!\d))"
    r"|(?P<medical_record>ZZM-\d{10})|(?P<hospital_number>ZZH-\d{10})"
    r"|(?P<address_zh>某區某街\d{10}號)|(?P<address_en>\d{10} Anon Road)"
    r"|(?P<name_zh>某[\u4e00-\u9fff]{3})|(?P<name_en>Anon [A-Z][a-z]{9})"
)


def reserved_spans(text: str) -> list[tuple[int, int]]:
    """Returns where surrogates stand in `text`."""
    spans = []
    for found in _SHAPES.finditer(text):
        # Z? is not in use today; were it given out, a card with the right check character would still be found.
        if found.lastgroup == "hkid" and hkid_check(found.group()[:8]) == found.group()[9]:
            continue
        spans.append(found.span())
    return spans
