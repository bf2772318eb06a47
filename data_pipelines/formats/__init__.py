"""Formats of rows: a module each, with FIELDS, REQUIRED and documents(row, columns). A new one is one line in FORMATS."""

from __future__ import annotations

from typing import Protocol

from configs.errors import DataError
from data_pipelines.formats import alpaca, chat, sharegpt, text
from data_pipelines.formats.document import Document, Message


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


FORMATS: dict[str, Format] = {"chat": chat, "sharegpt": sharegpt, "alpaca": alpaca, "text": text}  # type: ignore[dict-item]


def detect(row: Message, columns: dict[str, str]) -> str | None:
    """Returns the name of the first format whose required columns `row` has; None when there is none."""
    for name, form in FORMATS.items():
        if columns.keys() <= form.FIELDS.keys() and all(
            columns.get(key, form.FIELDS[key]) in row for key in form.REQUIRED
        ):
            return name
    return None


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


def expected() -> str:
    """Returns the required columns of every format, for an error message."""
    return ", ".join(f"{'+'.join(form.REQUIRED)} ({name})" for name, form in FORMATS.items())
