"""Alpaca: {"instruction": "...", "input": "...", "output": "...", "system": "...", "history": [[user, assistant], ...]}."""

from __future__ import annotations

from typing import Any

from data_pipelines.formats.document import Chat, Document, Message, field, text_of
from data_pipelines.json_rows import parse_value
from data_pipelines.problems import RowProblem, type_name

FIELDS = {"instruction": "instruction", "input": "input", "output": "output", "system": "system", "history": "history"}
REQUIRED = ("instruction", "output")


def documents(row: Message, columns: dict[str, str]) -> list[Document]:
    """Returns a conversation: system when there is one, earlier turns, instruction and input, output.

    Raises:
        RowProblem: a column is missing, empty or of another type.
    """
    instruction = text_of(field(row, columns["instruction"]), columns["instruction"])
    output = text_of(field(row, columns["output"]), columns["output"])
    given = _optional(row, columns["input"])
    system = _optional(row, columns["system"])
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages += _history(row.get(columns["history"]), columns["history"])
    messages.append({"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction})
    messages.append({"role": "assistant", "content": output})
    return [Chat(messages)]


def _optional(row: Message, column: str) -> str:
    """Returns an optional text; blank counts as not given."""
    value = row.get(column)
    text = "" if value is None else text_of(value, column, may_be_empty=True)
    return text if text.strip() else ""


def _history(value: Any, key: str) -> list[Message]:
    if value is None or value == "":
        return []
    turns = parse_value(value, key, "a list") if isinstance(value, str) else value
    if not isinstance(turns, list):
        raise RowProblem(key, f"{type_name(turns)}, not a list", "expected pairs [question, answer]")
    messages: list[Message] = []
    for i, pair in enumerate(turns):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowProblem(f"{key}[{i}]", "not a pair", "expected [question, answer]")
        messages.append({"role": "user", "content": text_of(pair[0], f"{key}[{i}][0]")})
        messages.append({"role": "assistant", "content": text_of(pair[1], f"{key}[{i}][1]")})
    return messages
