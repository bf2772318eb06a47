"""Kinds of personal identifiers, and what finding one gives: a span with how sure the rule is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

# Name -> what a reader of a report sees. The order is that of the reports.
KINDS = {
    "hkid": "Hong Kong identity card numbers",
    "mainland_id": "mainland identity card numbers",
    "phone_hk": "Hong Kong telephone numbers",
    "phone_mainland": "mainland telephone numbers",
    "email": "e-mail addresses",
    "card": "payment card numbers",
    "bank_account": "bank account numbers",
    "medical_record": "medical record numbers",
    "hospital_number": "hospital case and admission numbers",
    "birth_date": "dates of birth",
    "address_zh": "addresses in Chinese",
    "address_en": "addresses in English",
    "name_zh": "names in Chinese",
    "name_en": "names in English",
}


class Certainty(IntEnum):
    """Why a rule believes in a find; where two finds overlap the surer one is taken, then the longer one."""

    SHAPE = 1
    CONTEXT = 2
    SUM = 3
    LABEL = 4
    IDENTITY = 5


@dataclass(frozen=True, slots=True)
class Match:
    """One find: characters `start` to `end` (exclusive) of the text that was searched."""

    kind: str
    start: int
    end: int
    certainty: Certainty
