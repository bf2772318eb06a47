"""LLaMA-Factory's names of data sets in our sources: what `dataset_info.json` says of a file, its columns and its tags.

Read in LLaMA-Factory's data/README.md and src/llamafactory/data/parser.py. A data set with `ranking: true` holds pairs, one
with a column `kto_tag` answers with labels; the format of any other is looked up in its rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Left = list[tuple[str, str]]
NAME = "dataset_info.json"

# Their column -> the field of our format, where rows are pairs or answers with a label.
_FIELDS = {
    "preference": {"prompt": "prompt", "messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    "kto": {"prompt": "prompt", "response": "completion", "messages": "conversations", "kto_tag": "label"},
}
_EITHER = {"system": "system", "tools": "tools"}
# The columns that they take where dataset_info.json names none, and those that are found here without being named.
_USUAL = {"alpaca": {"prompt": "instruction", "query": "input", "response": "output"}, "sharegpt": {"messages": "conversations"}}
_FOUND = ("instruction", "input", "output", "history", "system", "tools", "conversations", "messages", "label", "kto_tag")
_TAGS = {"role_tag": ("from", "role"), "content_tag": ("value", "content")}
_ROLES = {
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool"),
    "function_tag": ("function_call",),
    "system_tag": ("system",),
}
_KNOWN = ("file_name", "formatting", "ranking", "columns", "tags")


@dataclass(frozen=True, slots=True)
class DataSets:
    """What a dataset_info.json describes; files lie beside it."""

    folder: Path
    entries: Mapping[str, Any]

    @classmethod
    def near(cls, values: Mapping[str, Any], path: Path) -> DataSets | None:
        """Returns the one that the YAML at `path` means: in its `dataset_dir` (`data`), from here or from the YAML's folder."""
        name = str(values.get("dataset_dir") or "data")
        for folder in (Path(name), path.parent / name):
            try:
                entries = json.loads((folder / NAME).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(entries, dict):
                return cls(folder, entries)
        return None


def sources_of(names: Sequence[str], known: DataSets | None) -> tuple[dict[str, dict[str, Any]], Left]:
    """Returns our sources by name for LLaMA-Factory's data sets, and what could not be carried over."""
    found: dict[str, dict[str, Any]] = {}
    left: Left = []
    for name in names:
        entry = known.entries.get(name) if known is not None else None
        if known is None or not isinstance(entry, dict) or "file_name" not in entry:
            left.append(("dataset", f"{name}: names of {NAME}; give the file itself: data.train=PATH"))
            continue
        if not all(isinstance(entry.get(key) or {}, dict) for key in ("columns", "tags")):
            left.append(("dataset", f"{name}: columns or tags of {NAME} are no mapping; give the file itself: data.train=PATH"))
            continue
        source, missing = _source(entry, known.folder)
        key = re.sub(r"\W", "_", name)
        while key in found:  # `pairs-a` and `pairs_a`, or one name twice
            key += "_"
        found[key] = source
        left += [(f"dataset {name}: {key}", reason) for key, reason in missing]
    return found, left


def _source(entry: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], Left]:
    """Returns path, format and columns of one data set."""
    columns: dict[str, str] = entry.get("columns") or {}
    written = str(entry.get("formatting", "alpaca"))
    form = "preference" if entry.get("ranking") else "kto" if columns.get("kto_tag") else "auto"
    source: dict[str, Any] = {"path": str(folder / str(entry["file_name"]))}
    left: Left = [(key, "no counterpart") for key in entry if key not in _KNOWN]
    if written not in _USUAL:
        left.append(("formatting", f"{written}: not known here; expected {' or '.join(_USUAL)}"))
    if form == "auto":
        named = {**columns, **(entry.get("tags") or {})}
        unusual = {key: value for key, value in named.items() if value not in (*_FOUND, *sum((*_TAGS.values(), *_ROLES.values()), ()))}
        return source, left + [(key, f"{value}: the format is looked up in the rows; columns= names other columns") for key, value in unusual.items()]
    fields = {**_FIELDS[form], **_EITHER}
    named = {**_USUAL.get(written, {}), **columns}
    mapped = {fields[key]: value for key, value in named.items() if key in fields and value != fields[key] and value != "kto_tag"}
    left += [(f"columns.{key}", "no counterpart") for key in columns if key not in fields and key != "query"]
    if query := named.get("query"):
        left.append(("columns.query", f"a prompt of two columns is not read here: where {query} has text, join it to the prompt"))
    renamed, wrong = _tags(entry.get("tags") or {})
    return {**source, "format": form, "columns": {**mapped, **renamed}}, [*left, *wrong]


def _tags(tags: Mapping[str, str]) -> tuple[dict[str, str], Left]:
    """Returns our columns of a turn for their tags, and the names of speakers that are not known here."""
    renamed = {usual[0]: str(tags[key]) for key, usual in _TAGS.items() if key in tags and tags[key] not in usual}
    left: Left = [
        (f"tags.{key}", f"{value}: turns are named {' or '.join(_ROLES[key])} here")
        for key, value in tags.items()
        if key in _ROLES and value not in _ROLES[key]
    ]
    return renamed, left
