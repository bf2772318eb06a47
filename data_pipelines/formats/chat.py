"""Chat messages: {"messages": [{"role": "user", "content": "..."}, ...], "system": "...", "tools": [...]}."""

from __future__ import annotations

from typing import Any

from data_pipelines.formats.document import (
    REASONING_KEYS,
    ROLES,
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
    unknown_role,
)
from data_pipelines.problems import RowProblem

FIELDS = {"messages": "messages", "system": "system", "tools": "tools", "role": "role", "content": "content"}
REQUIRED = ("messages",)


def documents(row: Message, columns: dict[str, str]) -> list[Document]:
    """Returns the one conversation of a row; a `system` column that is not blank becomes its first message.

    Raises:
        RowProblem: a turn or the list of turns is not as expected.
    """
    key = columns["messages"]
    turns = list_of(field(row, key), key)
    messages = [message_of(turn, f"{key}[{i}]", columns) for i, turn in enumerate(turns)]
    messages = behind_system(check_turns(messages, key, role_key=columns["role"]), row, columns["system"])
    return [Chat(messages, tools_of(row.get(columns["tools"]), columns["tools"]))]


def message_of(turn: Any, key: str, columns: dict[str, str]) -> Message:
    """Returns one turn; `columns` names its `role` and its `content`.

    Raises:
        RowProblem: it is not as expected.
    """
    turn = object_of(turn, key)
    if len(turn) == 2:
        # Nearly every turn of nearly every file is no more than this.
        role, content = turn.get(columns["role"]), turn.get(columns["content"])
        if isinstance(content, str) and role in ROLES and content.strip():
            return {"role": role, "content": content}
    role_key, content_key = f"{key}.{columns['role']}", f"{key}.{columns['content']}"
    if columns["role"] not in turn:
        raise RowProblem(role_key, "missing", f"use {', '.join(ROLES)}")
    role = turn[columns["role"]]
    if role not in ROLES:
        raise unknown_role(role, role_key)
    if turn.get("weight", 1) != 1:
        raise RowProblem(
            f"{key}.weight", "a turn's own weight", "not supported; leave it out, every assistant turn is learned"
        )
    message: Message = {"role": role}
    calls = turn.get("tool_calls") or []
    if calls and role == "assistant":
        message["tool_calls"] = [
            call_of(call, f"{key}.tool_calls[{i}]") for i, call in enumerate(list_of(calls, f"{key}.tool_calls"))
        ]
    content = turn.get(columns["content"])
    if content is None and not calls:
        raise RowProblem(content_key, "missing", "every turn needs its text")
    message["content"] = text_of(
        "" if content is None else content, content_key, may_be_empty=bool(calls) or role == "tool"
    )
    for name in ("name", "tool_call_id", *REASONING_KEYS):
        if turn.get(name) is not None:
            message[name] = text_of(turn[name], f"{key}.{name}", may_be_empty=True)
    return message
