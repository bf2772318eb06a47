"""What a section of the board page is made of: sentences, facts, tables and charts, whose figures name where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from train.dossier import Figure

# A sentence with figures in it.
Words = tuple[str | Figure, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table. A heading that is a Figure says where its column comes from; a `*` in its key stands for the row's name."""

    caption: str
    header: tuple[str | Figure, ...]
    rows: tuple[tuple[str | Figure, ...], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture: our own SVG, and in words what it shows."""

    svg: str
    words: str


@dataclass(frozen=True, slots=True)
class BoardSection:
    """One section. `missing` are sentences on what was not measured or not given; the limits repeat them."""

    title: str
    title_zh: str
    sentences: tuple[Words, ...] = ()
    facts: tuple[tuple[str, Words], ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    points: tuple[Words, ...] = ()
    missing: tuple[str, ...] = ()
