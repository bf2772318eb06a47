"""What a release says of files: their names and hashes, not where they lay. Folders hold names of users, projects and patients."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.dossier import model_name

# Keys whose values are places of this machine, and those whose values are hashes of files by their place.
_MODELS, _PLACES, _FILES = ("model", "base", "reference"), ("path", "folder"), ("data", "weights", "tokenizer", "lines")
_LEFT_OUT = ("working_folder",)


def without_places(value: Any, key: str = "") -> Any:
    """Returns a value of the run's JSON files, or of its configuration, with names instead of places."""
    if isinstance(value, Mapping):
        kept = {name: without_places(one, name) for name, one in value.items() if name not in _LEFT_OUT}
        return _by_name(kept) if key in _FILES else kept
    if isinstance(value, (list, tuple)):
        return [without_places(one, key) for one in value]
    if not isinstance(value, str):
        return value
    if key == "command":
        return shlex.join(_word(word) for word in shlex.split(value))
    if key in _MODELS:
        return model_name(value)
    return named(value) if key in _PLACES or _is_place(value) else value


def _by_name(files: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by the names of files; of two of one name the second is called `NAME (2)`."""
    found: dict[str, Any] = {}
    for place, value in files.items():
        name, number = Path(place).name, 1
        while (shown := name if number == 1 else f"{name} ({number})") in found:
            number += 1
        found[shown] = value
    return found


def _is_place(text: str) -> bool:
    return text.startswith(("/", "~/", "./", "../"))


def named(place: str) -> str:
    """Returns the last part of a place; a name on the hub has none."""
    return place if place.startswith("hub:") else Path(place).name


def _word(word: str) -> str:
    """Returns a word of a command, `KEY=PLACE` too."""
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if "/" in value and not value.startswith("hub:") else word
