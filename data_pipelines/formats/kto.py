"""Answers with a label: {"prompt": ..., "completion": ..., "label": true}, {"messages": [...], "label": false}.

`conversations` with `kto_tag`, as LLaMA-Factory writes it, is read too. The completion is the last answer.
"""

from __future__ import annotations

from data_pipelines.formats.answers import (
    LABELS,
    TURN_FIELDS,
    answer_of,
    check_answer,
    has,
    one_of,
    prompt_of,
    turns_of,
    with_system,
)
from data_pipelines.formats.document import Chat, Document, Message, field, tools_of
from data_pipelines.problems import RowProblem, type_name
from data_pipelines.roles import Role

FIELDS = {
    "prompt": "prompt",
    "completion": "completion",
    "label": "label",
    "messages": "messages",
    "conversations": "conversations",
    "system": "system",
    "tools": "tools",
    **TURN_FIELDS,
}
REQUIRED = ("prompt", "completion", "label")
_SPELLINGS = {"true": True, "false": False}


def matches(row: Message, columns: dict[str, str]) -> bool:
    """Returns whether the row's columns are those of this format."""
    if not any(label in row for label in _labels(columns)):
        return False
    names = {name: columns.get(name, column) for name, column in FIELDS.items()}
    return names["messages"] in row or names["conversations"] in row or {names["prompt"], names["completion"]} <= row.keys()


def documents(row: Message, columns: dict[str, str]) -> list[Document]:
    """Returns the conversation, desirable or undesirable.

    Raises:
        RowProblem: the label is not true or false, the answer is missing, empty or not the assistant's, or two columns say
            the same thing.
    """
    for column in ("chosen", "rejected"):
        if has(row, column):
            raise RowProblem(column, "beside a label", "a row is a pair, or one answer with a label")
    role = Role.DESIRABLE if _label(row, columns) else Role.UNDESIRABLE
    asked = one_of(row, columns["prompt"], columns["messages"], columns["conversations"])
    whole = None if asked == columns["prompt"] else asked
    if whole == columns["messages"]:  # `conversations` beside a completion are its prompt, `messages` have an answer.
        one_of(row, columns["messages"], columns["completion"])
    if whole is not None and not has(row, columns["completion"]):
        turns = turns_of(row[whole], whole, columns)
        start = len(turns)
        while start and turns[start - 1]["role"] in ("assistant", "tool"):
            start -= 1
        prompt, answer, key = turns[:start], turns[start:], whole
    else:
        key = columns["completion"]
        answer = answer_of(field(row, key), key, columns)
        prompt = prompt_of(row, columns)
    check_answer(answer or prompt[-1:], key)
    if not any(turn["role"] == "user" for turn in prompt):
        raise RowProblem(whole or columns["prompt"], "no prompt", "an answer needs what it answers")
    prompt = with_system(prompt, row, columns)
    tools = tools_of(row.get(columns["tools"]), columns["tools"])
    return [Chat([*prompt, *answer], tools, role=role, prompt=len(prompt))]


def _labels(columns: dict[str, str]) -> tuple[str, ...]:
    column = columns.get("label", FIELDS["label"])
    return LABELS if column == FIELDS["label"] else (column,)


def _label(row: Message, columns: dict[str, str]) -> bool:
    name = one_of(row, *_labels(columns))
    if name is None:
        raise RowProblem(columns["label"], "missing", "expected true or false")
    value = row[name]
    if isinstance(value, str):  # a CSV has no other values
        value = _SPELLINGS.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise RowProblem(name, f"{type_name(value)}, not true or false", "expected true or false")
    return value
