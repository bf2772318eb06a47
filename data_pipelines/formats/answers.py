"""What rows with a prompt and answers to it have in common: the prompt, and an answer as text, turn or list of turns."""

from __future__ import annotations

import re
from typing import Any

from data_pipelines.formats import chat, sharegpt
from data_pipelines.formats.document import ROLES, Message, behind_system, list_of, object_of, text_of
from data_pipelines.json_rows import parse_value
from data_pipelines.problems import RowProblem, type_name

# Columns of turns, as the formats chat and sharegpt name them.
TURN_FIELDS = {"role": "role", "content": "content", "from": "from", "value": "value"}
LABELS = ("label", "kto_tag")
_PYTHON_TURN = re.compile(r"\s*\[?\s*\{\s*'(\w+)'\s*:")
_SPEAKERS = {*ROLES, *sharegpt.ROLE_OF}
_LARGEST_MARGIN = 3.4e38  # of a float32


def has(row: Message, column: str) -> bool:
    """Returns whether the row has the column with something in it: tables give every row every column."""
    return row.get(column) is not None


def one_of(row: Message, *columns: str) -> str | None:
    """Returns the one of `columns` that the row has; None when it has none.

    Raises:
        RowProblem: it has two with something in them: which one is meant cannot be known.
    """
    there = [column for column in dict.fromkeys(columns) if has(row, column)]
    # A CSV file gives every row every column, as an empty text.
    filled = [column for column in there if row[column] not in ("", [])]
    if len(filled) > 1:
        raise RowProblem(filled[1], f"beside {filled[0]}", "one row says it twice; keep one of the two columns")
    return next(iter([*filled, *there]), None)


def turns_of(value: Any, key: str, columns: dict[str, str]) -> list[Message]:
    """Returns a list of turns, each written as in a chat file or as in a ShareGPT file.

    Raises:
        RowProblem: not a list of turns.
    """
    return [_turn(turn, f"{key}[{i}]", columns) for i, turn in enumerate(list_of(value, key))]


def _turn(turn: Any, key: str, columns: dict[str, str]) -> Message:
    turn = object_of(turn, key)
    if columns["from"] in turn:
        return sharegpt.message_of(turn, key, columns)
    return chat.message_of(turn, key, columns)


def answer_of(value: Any, key: str, columns: dict[str, str]) -> list[Message]:
    """Returns the turns of an answer: a text is an assistant's turn.

    Raises:
        RowProblem: empty, or not an answer.
    """
    if isinstance(value, str):
        value = _perhaps_turns(value, key, columns)
    if isinstance(value, str):
        return [{"role": "assistant", "content": text_of(value, key)}]
    if isinstance(value, dict):
        return [_turn(value, key, columns)]
    if not isinstance(value, list):
        raise RowProblem(key, f"{type_name(value)}, not an answer", "expected a text, or turns")
    return turns_of(value, key, columns)


def _perhaps_turns(value: str, key: str, columns: dict[str, str]) -> Any:
    """Returns the turn or turns that a table's cell holds as JSON; the text itself when it holds none.

    Raises:
        RowProblem: turns as Python writes them, which would be learned letter by letter.
    """
    if not value.lstrip().startswith(("[", "{")):
        return value
    speakers = (columns["role"], columns["from"])
    if match := _PYTHON_TURN.match(value):
        if match.group(1) in (*speakers, columns["content"], columns["value"]):
            raise RowProblem(key, "turns as Python writes them", "write them as JSON: json.dumps", reason="not JSON")
        return value
    try:
        found = parse_value(value, key, "turns")
    except RowProblem:
        return value
    turns = found if isinstance(found, list) else [found]
    return found if turns and all(_is_turn(turn, columns) for turn in turns) else value


def _is_turn(value: Any, columns: dict[str, str]) -> bool:
    """True for a speaker with a text, or one that is known: `{"from": "HKG", "to": "LHR"}` is an answer in JSON."""
    if not isinstance(value, dict):
        return False
    speakers = [value[columns[name]] for name in ("role", "from") if columns[name] in value]
    has_text = columns["content"] in value or columns["value"] in value
    return bool(speakers) and (has_text or any(str(speaker) in _SPEAKERS for speaker in speakers))


def prompt_of(row: Message, columns: dict[str, str]) -> list[Message]:
    """Returns the turns before the answers; empty when the row has no column for them.

    Raises:
        RowProblem: they are not as expected, stand there twice, or end with an assistant's turn.
    """
    key = one_of(row, columns["prompt"], columns["conversations"])
    if key is None:
        return []
    value = row[key]
    if isinstance(value, str):
        value = _perhaps_turns(value, key, columns)
    turns = [{"role": "user", "content": text_of(value, key)}] if isinstance(value, str) else turns_of(value, key, columns)
    if turns[-1]["role"] not in ("user", "tool"):
        raise RowProblem(key, f"the prompt ends with {_article(turns[-1]['role'])} turn", "end it with the user's")
    return turns


def with_system(turns: list[Message], row: Message, columns: dict[str, str]) -> list[Message]:
    """Returns `turns` behind the row's `system` text, when it has one.

    Raises:
        RowProblem: the turns have a system message too, or one that is not the first.
    """
    key = columns["system"]
    turns = behind_system(turns, row, key)
    if any(turn["role"] == "system" for turn in turns[1:]):
        raise RowProblem(key, "a system message that is not the first", "put one system message at the start")
    return turns


def check_answer(answer: list[Message], key: str) -> None:
    """Refuses an answer that is not an assistant's: its turns are the assistant's and its tools', an assistant's last.

    Raises:
        RowProblem: it is not.
    """
    if answer[-1]["role"] != "assistant":
        raise RowProblem(key, f"ends with {_article(answer[-1]['role'])} turn", "an answer ends with an assistant turn")
    if answer[0]["role"] != "assistant":
        raise RowProblem(key, f"starts with {_article(answer[0]['role'])} turn", "an answer is the assistant's")
    if any(turn["role"] not in ("assistant", "tool") for turn in answer):
        raise RowProblem(key, "an answer with a user's turn", "put all but the last answer into the prompt")


def margin_of(row: Message, column: str) -> float:
    """Returns by how much the chosen answer is better; 0 when the row does not say.

    Raises:
        RowProblem: not a finite number.
    """
    value = row.get(column)
    if value is None or value == "":
        return 0.0
    if isinstance(value, str):  # a CSV has no numbers
        try:
            value = float(value)
        except ValueError:
            raise RowProblem(column, "text, not a number", "expected a finite number") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RowProblem(column, f"{type_name(value)}, not a number", "expected a finite number")
    if not -_LARGEST_MARGIN < value < _LARGEST_MARGIN:
        raise RowProblem(column, "not a finite number", "expected a finite number")
    return float(value)


def _article(role: str) -> str:
    return f"{'an' if role == 'assistant' else 'a'} {role}"
