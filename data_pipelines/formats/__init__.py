"""Formats of rows: a module each, with FIELDS, REQUIRED and documents(row, columns). A new one is one line in FORMATS."""

from __future__ import annotations

from typing import Protocol

from configs.errors import DataError
from configs.schema.objective import LIKELIHOOD
from data_pipelines.formats import alpaca, chat, kto, preference, sharegpt, text
from data_pipelines.formats.document import Document, Message
from data_pipelines.roles import LABELLED


class Format(Protocol):
    """How rows of one kind are read."""

    FIELDS: dict[str, str]
    """Field of the format -> its usual column."""
    REQUIRED: tuple[str, ...]
    """Fields that tell this format from the others."""

    @staticmethod
    def documents(row: Message, columns: dict[str, str]) -> list[Document]:
        """Returns the documents of one row; `columns` names a column for every field."""
        ...


FORMATS: dict[str, Format] = {
    "chat": chat,  # type: ignore[dict-item]
    "sharegpt": sharegpt,  # type: ignore[dict-item]
    "alpaca": alpaca,  # type: ignore[dict-item]
    "text": text,  # type: ignore[dict-item]
    "preference": preference,  # type: ignore[dict-item]
    "kto": kto,  # type: ignore[dict-item]
}
PLAIN = ("chat", "sharegpt", "alpaca", "text")
_CONVERSATIONS = ("chat", "sharegpt", "alpaca")
# Formats whose conversation stands in the column of a ShareGPT file, so that they are looked for before it.
_RANKED = ("chat", "preference", "kto", "sharegpt", "alpaca", "text")


def formats_for(objective: str) -> tuple[str, ...]:
    """Returns the formats that an objective learns from."""
    return PLAIN if objective in LIKELIHOOD else ("kto",) if objective in LABELLED else ("preference",)


def detect(row: Message, columns: dict[str, str], objective: str = "sft") -> str | None:
    """Returns the format whose required columns `row` has, one of the objective's own first; None when there is none.

    Columns of no meaning to a format may be there: a chat file may have a `label`, so only kto reads it as an answer's.
    A conversation with `chosen` and `rejected`, or with `kto_tag`, has no answer of its own: it is no ShareGPT chat.
    """
    own = formats_for(objective)
    names = [*own, *(name for name in _RANKED if name not in own)]
    found = next((name for name in names if _has_columns(name, row, columns)), None)
    if found == "sharegpt" and objective in LIKELIHOOD:
        if _has_columns("preference", row, columns):
            return "preference"
        if "kto_tag" in row and not columns:
            return "kto"
    return found


def rivals(name: str, row: Message, columns: dict[str, str]) -> list[str]:
    """Returns the formats of conversations in which `row` can be read when `name` is one of several, else nothing.

    A `text` beside a conversation is usually that conversation written out: it is no rival.
    """
    found = [other for other in _CONVERSATIONS if _has_columns(other, row, columns) and _is_filled(other, row, columns)]
    return found if name in found and len(found) > 1 else []


def _is_filled(name: str, row: Message, columns: dict[str, str]) -> bool:
    form = FORMATS[name]
    return all(row[columns.get(key, form.FIELDS[key])] not in (None, "", []) for key in form.REQUIRED)


def _has_columns(name: str, row: Message, columns: dict[str, str]) -> bool:
    form = FORMATS[name]
    if not columns.keys() <= form.FIELDS.keys():
        return False
    if name == "kto":  # its columns come in several sets
        return kto.matches(row, columns)
    return all(columns.get(key, form.FIELDS[key]) in row for key in form.REQUIRED)


def check_format(name: str, objective: str, path: str) -> None:
    """Refuses a file whose format the objective cannot learn from.

    Raises:
        DataError: it cannot.
    """
    own = formats_for(objective)
    if name in own:
        return
    holds = {"preference": "preference pairs (chosen and rejected)", "kto": "answers with a label (kto)"}
    wants = {"preference": "pairs: prompt, chosen, rejected", "kto": "labelled answers: prompt, completion, label"}
    expected_here = wants.get(own[0], "chats or texts")
    fits = {"preference": "dpo, orpo, simpo or reward", "kto": "kto"}.get(name, "sft")
    raise DataError(
        f"{path}: holds {holds.get(name, f'rows of the format {name}')}, and objective={objective} learns from "
        f"{expected_here}; objective={fits} learns from this file"
    )


def columns_of(name: str, columns: dict[str, str], source: str) -> dict[str, str]:
    """Returns a column for each field of format `name`, for the files of `source`.

    Raises:
        DataError: `columns` maps a field that the format does not have.
    """
    fields = FORMATS[name].FIELDS
    unknown = [key for key in columns if key not in fields]
    if unknown:
        raise DataError(
            f"data.sources.{source}.columns: {', '.join(unknown)} is no field of the format {name}; "
            f"it has {', '.join(fields)}"
        )
    return {**fields, **columns}


def expected(objective: str = "sft") -> str:
    """Returns the required columns of every format that an objective learns from, for an error message."""
    return ", ".join(f"{'+'.join(FORMATS[name].REQUIRED)} ({name})" for name in formats_for(objective))
