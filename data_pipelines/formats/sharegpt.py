"""ShareGPT: {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}], "system": ...}."""

from __future__ import annotations

from typing import Any

from data_pipelines.formats.document import (
    Chat,
    Document,
    Message,
    behind_system,
    call_of,
    check_turns,
    field,
    list_of,
    object_of,
    text_of,
    tools_of,
)
from data_pipelines.json_rows import parse_value
from data_pipelines.problems import RowProblem, quoted

FIELDS = {"conversations": "conversations", "from": "from", "value": "value", "system": "system", "tools": "tools"}
REQUIRED = ("conversations",)
ROLE_OF = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
}


def documents(row: Message, columns: dict[str, str]) -> list[Document]:
    """Returns the one conversation of a row; a `system` column that is not blank becomes its first message.

    Raises:
        RowProblem: a turn or the list of turns is not as expected.
    """
    key = columns["conversations"]
    turns = list_of(field(row, key), key)
    messages = [message_of(turn, f"{key}[{i}]", columns) for i, turn in enumerate(turns)]
    messages = behind_system(check_turns(messages, key, role_key=columns["from"]), row, columns["system"])
    return [Chat(messages, tools_of(row.get(columns["tools"]), columns["tools"]))]


def message_of(turn: Any, key: str, columns: dict[str, str]) -> Message:
    """Returns one turn; `columns` names its speaker (`from`) and its text (`value`).

    Raises:
        RowProblem: it is not as expected.
    """
    turn = object_of(turn, key)
    from_name = _name(turn, key, columns["from"], "role")
    value_name = _name(turn, key, columns["value"], "content")
    if from_name not in turn:
        raise RowProblem(f"{key}.{columns['from']}", "missing", f"use {', '.join(ROLE_OF)}")
    speaker = turn[from_name]
    if not isinstance(speaker, str) or speaker not in ROLE_OF:
        raise RowProblem(
            f"{key}.{from_name}",
            f"{quoted(speaker)}: no such role",
            "use human, gpt, system, function_call, observation",
            reason="no such role",
        )
    if value_name not in turn:
        raise RowProblem(f"{key}.{columns['value']}", "missing", "every turn needs its text")
    value = text_of(turn[value_name], f"{key}.{value_name}", may_be_empty=speaker in ("observation", "tool"))
    if speaker == "function_call":
        call = parse_value(value, f"{key}.{value_name}", "an object")
        return {"role": "assistant", "content": "", "tool_calls": [call_of(call, f"{key}.{value_name}")]}
    return {"role": ROLE_OF[speaker], "content": value}


def _name(turn: Message, key: str, own: str, other: str) -> str:
    """Returns the name that a turn uses: many files of this family have OpenAI's names inside `conversations`."""
    if own in turn and other in turn and own != other:
        raise RowProblem(f"{key}.{other}", f"beside {own}", "one turn says it twice; keep one of the two")
    return own if own in turn else other
