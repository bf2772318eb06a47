"""board.html of a run: the page on which people who are not engineers decide whether a model may be used. Files only, no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jinja2

from configs import atomic
from train.board import cost, data, evaluation, limits, lineage, privacy, purpose, regressions, split, training
from train.board.page import PAGE
from train.board.section import BoardSection
from train.dossier import MANIFEST, Dossier, file_hash, read_dossier

# In the order of the page; a section is a module with `section(dossier) -> BoardSection`. Limits and signatures follow.
SECTIONS: tuple[Callable[[Dossier], BoardSection], ...] = (
    purpose.section,
    data.section,
    privacy.section,
    split.section,
    training.section,
    evaluation.section,
    regressions.section,
    lineage.section,
    cost.section,
)
NAME = "board.html"


def render_board(dossier: Dossier) -> str:
    """Returns the page as HTML text."""
    parts = [make(dossier) for make in SECTIONS]
    parts.append(limits.section(parts))
    origins: dict[str, int] = {}

    def note(origin: str) -> int:
        return origins.setdefault(origin, len(origins) + 1)

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.globals["note"] = note
    # The list of origins is known only after all else is rendered: its place is held by the dictionary that fills.
    return environment.from_string(PAGE).render(
        dossier=dossier,
        sections=parts,
        origins=origins,
        written=dossier.manifest.get("written", ""),
        manifest_hash=file_hash(dossier.path / MANIFEST),
    )


def write_board(run_path: Path, release_path: Path) -> list[Path]:
    """Writes `release_path`/board.html (0600) from the run folder's files; returns what was written."""
    path = release_path / NAME
    released = release_path if release_path != run_path else None
    atomic.write_file(path, render_board(read_dossier(run_path, released)))
    return [path]
