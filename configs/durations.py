"""Lengths of a run or of a part of it: one value with a unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Unit = Literal["steps", "epochs", "tokens", "percent"]

_PATTERN = re.compile(r"\s*([0-9][0-9_,]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*(%|[a-zA-Z]*)\s*")
_UNITS: dict[str, Unit] = {
    "": "steps",
    "step": "steps",
    "steps": "steps",
    "epoch": "epochs",
    "epochs": "epochs",
    "token": "tokens",
    "tokens": "tokens",
    "%": "percent",
}


@dataclass(frozen=True, slots=True)
class Duration:
    """A length: `3 epochs`, `500 steps`, `2e9 tokens` or `10%` of the run."""

    value: float
    unit: Unit

    def steps(
        self, *, total_steps: int | None, rows_per_epoch: int, global_batch_size: int, sequence_length: int
    ) -> int:
        """Returns the length in optimizer steps, rounded up; 0 only when the value is 0.

        Args:
            total_steps: of the run; needed for percent.
            rows_per_epoch: packed rows of one epoch.
            global_batch_size: packed rows of one step.
            sequence_length: tokens of one row.
        """
        if self.unit == "steps":
            exact = self.value
        elif self.unit == "epochs":
            exact = self.value * rows_per_epoch / global_batch_size
        elif self.unit == "tokens":
            exact = self.value / (global_batch_size * sequence_length)
        else:
            assert total_steps is not None, "percent needs the run's steps"
            exact = self.value / 100 * total_steps
        # 3 % of 100 is 3.0000000000000004 in floating point: that is 3 steps.
        return math.ceil(round(exact, 9))

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.unit == "percent" else f"{self.value:g} {self.unit}"


def parse_duration(text: str | int | float) -> Duration:
    """Returns `text` as a duration; a bare number is steps.

    Raises:
        ValueError: it is not a number with one of the units steps, epochs, tokens or %.
    """
    match = _PATTERN.fullmatch(str(text))
    if match and match[2].lower() in _UNITS:
        return Duration(float(match[1].replace("_", "").replace(",", "")), _UNITS[match[2].lower()])
    raise ValueError(f"{text!r}: expected a number and a unit: `100 steps`, `3 epochs`, `2e9 tokens` or `10%`")


_SECONDS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hours": 3600, "d": 86400, "days": 86400}


def parse_seconds(text: str | int | float) -> float:
    """Returns a time in seconds: `30 s`, `5 min`, `6h`, `1 d`, `1:30:00`, `1-12:00:00`; a bare number is seconds.

    Raises:
        ValueError: it is none of these; `12:30` is refused, as it may mean minutes or hours.
    """
    given = str(text).strip().lower()
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", given)
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    match = _PATTERN.fullmatch(given)
    if match and match[2] in _SECONDS:
        return float(match[1].replace("_", "").replace(",", "")) * _SECONDS[match[2]]
    raise ValueError("expected a time: `30 s`, `5 min`, `6h` or `1:30:00`")
