"""paper/ of a run: methods.md, references.bib, tables as CSV and LaTeX, figures as SVG, from the run folder alone. No torch."""

from __future__ import annotations

from pathlib import Path

from configs import atomic
from train.dossier import read_dossier
from train.paper.citations import bibtex
from train.paper.figures import draw_all
from train.paper.methods import write_methods
from train.paper.tables import data, hyperparameters, results

FOLDER = "paper"


def write_paper(run_path: Path, release_path: Path) -> list[Path]:
    """Writes `release_path`/paper from the run folder's files, replacing what it wrote before; returns what was written."""
    dossier = read_dossier(run_path)
    methods, cited = write_methods(dossier)
    files = {"methods.md": methods, "references.bib": bibtex(cited)}
    for table in (results(dossier), hyperparameters(dossier), data(dossier)):
        files[f"{table.name}.csv"], files[f"{table.name}.tex"] = table.as_csv(), table.as_latex()
    files |= dict(draw_all(dossier))
    folder = release_path / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, text in files.items():
        atomic.write_file(folder / name, text)
    return [folder / name for name in files]
