"""Plain text: {"text": "..."}; a line of a text file, a column of a table."""

from __future__ import annotations

from data_pipelines.formats.document import Document, Message, Text, field, text_of

FIELDS = {"text": "text"}
REQUIRED = ("text",)


def documents(row: Message, columns: dict[str, str]) -> list[Document]:
    """Returns the one text of a row.

    Raises:
        RowProblem: the column is missing, empty or not a text.
    """
    key = columns["text"]
    return [Text(text_of(field(row, key), key))]
