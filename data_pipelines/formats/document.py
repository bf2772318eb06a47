"""What a format makes of a row: a chat or a plain text, checked, with the key each part came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data_pipelines.json_rows import parse_value
from data_pipelines.problems import RowProblem, column_names, quoted, type_name
from data_pipelines.roles import Role

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation as a chat template takes it; `tools` are JSON schemas of functions.

    Attributes:
        role: what it is to a preference objective.
        margin: by how much a chosen answer is better; 0 when the row does not say.
        prompt: of a conversation with a role: how many messages are its prompt, of which nothing is learned.
    """

    messages: list[Message]
    tools: list[Any] | None = None
    role: Role = Role.PLAIN
    margin: float = 0.0
    prompt: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """A plain text, learned as it stands."""

    text: str


Document = Chat | Text


def field(row: Message, column: str) -> Any:
    """Returns the value of a column that must be there.

    Raises:
        RowProblem: no such column; the row's own columns are named.
    """
    if column not in row:
        raise RowProblem(column, "missing", f"this row has: {column_names(row) or 'none'}")
    return row[column]


def text_of(value: Any, key: str, *, may_be_empty: bool = False) -> str:
    """Returns a text; a list of text parts (as in OpenAI's API) becomes one text.

    Raises:
        RowProblem: another type, an image or audio part, or nothing but blanks.
    """
    if isinstance(value, list):
        value = "".join(_part_text(part, f"{key}[{i}]") for i, part in enumerate(value))
    if not isinstance(value, str):
        raise RowProblem(key, f"{type_name(value)}, not text", "expected a text in quotes")
    if not may_be_empty and not value.strip():
        raise RowProblem(key, "empty", "fill it or leave this turn out")
    return value


def _part_text(part: Any, key: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else None
    found = f"a part of type {quoted(kind)}" if isinstance(kind, str) else f"{type_name(part)}, not a text part"
    raise RowProblem(key, found, "only text parts can be learned", reason="a part that is not text")


def list_of(value: Any, key: str) -> list[Any]:
    """Returns a list that is not empty; a text that holds a JSON list (CSV, tables) is read as one.

    Raises:
        RowProblem: another type, or an empty list.
    """
    if isinstance(value, str):
        value = parse_value(value, key, "a list")
    if not isinstance(value, list):
        raise RowProblem(key, f"{type_name(value)}, not a list", "expected a list of turns")
    if not value:
        raise RowProblem(key, "an empty list", "leave this row out")
    return value


def check_turns(messages: list[Message], key: str, *, role_key: str = "role") -> list[Message]:
    """Returns `messages` when they are a conversation in which something can be learned.

    Raises:
        RowProblem: a second system message, one that is not the first, or no assistant turn.
    """
    for i, message in enumerate(messages):
        if message["role"] == "system" and i:
            again = any(earlier["role"] == "system" for earlier in messages[:i])
            problem = "a second system message" if again else "a system message that is not the first"
            raise RowProblem(f"{key}[{i}].{role_key}", problem, "put one system message at the start")
    if not any(message["role"] == "assistant" for message in messages):
        raise RowProblem(key, "no assistant turn", "nothing in this row can be learned")
    return messages


def behind_system(messages: list[Message], row: Message, column: str) -> list[Message]:
    """Returns `messages`, behind the text of the row's system column when it holds one.

    Raises:
        RowProblem: it is no text, or the messages begin with a system message too.
    """
    value = row.get(column)
    if value is None or not (system := text_of(value, column, may_be_empty=True)).strip():
        return messages
    if messages and messages[0]["role"] == "system":
        raise RowProblem(column, "a second system message", "the turns have one already; keep one of them")
    return [{"role": "system", "content": system}, *messages]


def tools_of(value: Any, key: str) -> list[Any] | None:
    """Returns the functions a conversation may call; null, an empty list or an empty text is none.

    Raises:
        RowProblem: not a list of objects.
    """
    if value is None or value == "" or value == []:
        return None
    tools = parse_value(value, key, "a list") if isinstance(value, str) else value
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowProblem(key, f"{type_name(tools)}, not a list of objects", "expected JSON schemas of functions")
    return tools or None


def call_of(call: Any, key: str) -> Message:
    """Returns one tool call as templates read it: {type, function: {name, arguments: object}}, id kept.

    Raises:
        RowProblem: no name, or arguments that are not an object.
    """
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowProblem(key, "a tool call without a name", "expected {function: {name, arguments}}")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = parse_value(arguments, f"{key}.arguments", "an object")
    if not isinstance(arguments, dict):
        raise RowProblem(f"{key}.arguments", f"{type_name(arguments)}, not an object", "expected named arguments")
    made: Message = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if isinstance(call.get("id"), str):
        made["id"] = call["id"]
    return made


def unknown_role(role: Any, key: str) -> RowProblem:
    """Returns the problem of a role that does not exist; its value is shown when it is one short word."""
    if not isinstance(role, str):
        return RowProblem(key, f"{type_name(role)}, not a role", f"use {', '.join(ROLES)}", reason="no such role")
    return RowProblem(key, f"{quoted(role)}: no such role", f"use {', '.join(ROLES)}", reason="no such role")


def object_of(value: Any, key: str) -> Message:
    """Returns an object.

    Raises:
        RowProblem: another type.
    """
    if not isinstance(value, dict):
        raise RowProblem(key, f"{type_name(value)}, not an object", "expected one turn")
    return value
