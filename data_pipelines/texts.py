"""The words of a row that the gates compare: what people and the model say, without instructions that every row repeats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from data_pipelines.formats.document import Document, Text

# They tie a conversation together and are no text.
_NOT_TEXT = frozenset({"role", "type", "id", "tool_call_id"})


def text_of_row(documents: Iterable[Document]) -> str:
    """Returns the texts of a row's documents, each once, a line end between them; system messages are left out."""
    pieces: list[str] = []
    for document in documents:
        if isinstance(document, Text):
            pieces.append(document.text)
        else:
            pieces += (t for m in document.messages if m["role"] != "system" for t in strings(m))
    return "\n".join(dict.fromkeys(pieces))


def strings(value: Any) -> Iterator[str]:
    """Yields every text inside a value of a row, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _NOT_TEXT:
                yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
