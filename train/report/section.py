"""What a section of the report is made of: a table, a figure, a block of text; all optional but the title."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """One section. `svg` is trusted markup of our own, `words` what it shows; everything but `svg` is escaped."""

    title: str
    rows: tuple[tuple[str, ...], ...] = ()
    header: tuple[str, ...] = ()
    svg: str = ""
    words: str = ""
    code: str = ""
    note: str = ""
