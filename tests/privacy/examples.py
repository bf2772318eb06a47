"""Labelled texts of the evaluation: an identifier in a sentence, some in an unusual spelling, half of them held apart.

`own`: values and wordings as the rules' author thinks of them. `tuned`: foreign ones that showed what the rules miss, after
which rules were changed. `apart`: others, scored once after the last change.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from tests.privacy.values import Values
from tests.privacy.wordings import OWN, TUNED
from tests.privacy.wordings_apart import APART, presidio_templates

CACHE = Path(__file__).parents[2] / ".cache" / "packages"
PARTS = ("own", "tuned", "apart", "apart")
WORDINGS = {"own": OWN, "tuned": TUNED, "apart": APART}

# Two to one: most text is written plainly.
VARIANTS = ("plain", "plain", "plain", "plain", "full width", "spaced", "mixed")
_FULL = {ord(c): ord(c) + 0xFEE0 for c in map(chr, range(0x21, 0x7F))}
_CYRILLIC = str.maketrans("ABEKMHOPCTXaeopcx", "АВЕКМНОРСТХаеорсх")
_SPACED = ("hkid", "mainland_id", "phone_hk", "phone_mainland", "card", "bank_account")
_BEFORE = {"zh": ["", "", "已安排化療。", "主訴頭暈三日，", "CT 顯示肝臟有腫塊。"], "en": ["", "", "Chemo arranged. ", "Hx of HT/DM. ", "CT showed a liver mass. "]}
_AFTER = {"zh": ["", "", "，下星期再覆診", "。請跟進。"], "en": ["", "", " - f/u in 2 weeks", ". Please arrange."]}


@dataclass(frozen=True, slots=True)
class Example:
    """A text with one labelled identifier, `text[start:end]`, of `kind`."""

    text: str
    kind: str
    start: int
    end: int
    language: str
    variant: str
    part: str


def make_examples(seed: int, per_kind: int) -> list[Example]:
    """Returns `per_kind` examples of every kind: a quarter own, a quarter tuned, half apart."""
    values = Values(seed)
    templates = presidio_templates(CACHE)
    draw = random.Random(seed + 1)
    made = []
    for kind in OWN:
        for number in range(per_kind):
            part = PARTS[number % 4]
            language = draw.choice(["zh", "en", "mixed"])
            made.append(_example(values, draw, kind, language, part, templates.get(kind, [])))
    return made


def _example(values: Values, draw: random.Random, kind: str, language: str, part: str, templates: list[str]) -> Example:
    inner, outer = (language, language) if language != "mixed" else draw.choice([("zh", "en"), ("en", "zh")])
    value = values.value(kind, inner, part)
    variant = draw.choice(VARIANTS)
    written = written_as(value, variant, kind, draw)
    if part == "apart" and templates and inner == "en" and draw.random() < 0.5:
        before, after = draw.choice(templates).split("{}")
        return Example(before + written + after, kind, len(before), len(before) + len(written), language, variant, part)
    before, after = draw.choice(WORDINGS[part][kind][inner]).split("{}")
    before = draw.choice(_BEFORE[outer]) + before
    text = before + written + after + draw.choice(_AFTER[outer])
    return Example(text, kind, len(before), len(before) + len(written), language, variant, part)


def written_as(value: str, variant: str, kind: str, draw: random.Random) -> str:
    """Returns a value in another spelling."""
    if variant == "full width":
        return value.translate(_FULL)
    if variant == "spaced" and kind in _SPACED:
        return " ".join(c for c in value if not c.isspace())
    if variant == "mixed":
        if kind == "hkid" and draw.random() < 0.5:
            return value.translate(_CYRILLIC)
        return "".join(c.translate(_FULL) if draw.random() < 0.4 else c for c in value)
    return value
