"""A reward model as a folder: how it is known, and what is said where a model that writes is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.runfolder import read_json


def names_classifier(model: Mapping[str, Any]) -> bool:
    """True where the values of a config.json say that the model has a head of labels instead of one of words."""
    return any(str(name).endswith("ForSequenceClassification") for name in model.get("architectures") or [])


def is_classifier(folder: Path) -> bool:
    """True where `folder` holds such a model; false where it holds none, or an adapter.

    Raises:
        CheckpointError: its config.json is damaged.
    """
    path = folder / "config.json"
    return path.is_file() and names_classifier(read_json(path) or {})


def loads_with(folder: Path) -> str:
    """Returns how the reward model in `folder` is used."""
    return f"transformers.AutoModelForSequenceClassification loads {folder}"


def no_writer(run: Path, verb: str) -> str:
    """Returns why `verb` does nothing with the reward model of a run, and what does."""
    return (
        f"{run.name}: a reward model, which scores answers and writes none, so {verb} has nothing to compare. {loads_with(run / 'model')}; "
        f"its held-out accuracy: aisc runs show {run.name}; its files: aisc verify {run.name}"
    )
