"""One figure of a plan: its value, where it comes from, and the formula with the numbers put in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# GIVEN is what the user says of the work, such as the number of tokens: it makes no figure less certain.
GIVEN, MEASURED, PUBLISHED, FORMULA = "given", "measured", "published", "formula only"
GB = 10**9


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a plan shows.

    Attributes:
        value: None when something is missing; `missing` then says what, in one sentence.
        unit: as printed.
        basis: measured, published or formula only: of the weakest input that was not given by the user.
        formula: in symbols and with the numbers of this plan.
        source: where the assumption comes from: a page, a run, a file; empty for arithmetic alone.
        band: plus or minus, in the figure's unit; None: nothing was compared.
    """

    value: float | None
    unit: str
    basis: str
    formula: str
    source: str = ""
    band: float | None = None
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return asdict(self)


def unknown(unit: str, missing: str, formula: str = "") -> Figure:
    """Returns a figure that cannot be said, with the sentence that asks for what it needs."""
    return Figure(None, unit, FORMULA, formula, missing=missing)


def weakest(*bases: str) -> str:
    """Returns the least certain of several bases."""
    return max(bases, key=(GIVEN, MEASURED, PUBLISHED, FORMULA).index)


def spell(value: float | None) -> str:
    """Returns `63 k`, `1.2 M`, `2.10 B`: three digits and a letter; `-` for nothing."""
    if value is None:
        return "-"
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            scaled = value / limit
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f} {letter}"
    return f"{value:.3g}"


def spell_hours(hours: float | None) -> str:
    """Returns `49 h`, `9.3 h` or `12 min`; `-` for nothing."""
    if hours is None:
        return "-"
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    return f"{hours:.1f} h" if hours < 20 else f"{hours:,.0f} h"
