"""Preference pairs: {"prompt": ..., "chosen": ..., "rejected": ...}, a better and a worse answer to one prompt.

An answer is a text, a turn or a list of turns; without `prompt` (or `conversations`, as LLaMA-Factory writes it) both are
whole conversations, and what they share at their start is the prompt. `margin` says by how much chosen is better.
"""

from __future__ import annotations

from data_pipelines.formats.answers import (
    LABELS,
    TURN_FIELDS,
    answer_of,
    check_answer,
    has,
    margin_of,
    prompt_of,
    with_system,
)
from data_pipelines.formats.document import Chat, Document, Message, field, tools_of
from data_pipelines.problems import RowProblem
from data_pipelines.roles import Role

FIELDS = {
    "prompt": "prompt",
    "chosen": "chosen",
    "rejected": "rejected",
    "conversations": "conversations",
    "margin": "margin",
    "system": "system",
    "tools": "tools",
    **TURN_FIELDS,
}
REQUIRED = ("chosen", "rejected")


def documents(row: Message, columns: dict[str, str]) -> list[Document]:
    """Returns two conversations with the same prompt, the chosen one first.

    Raises:
        RowProblem: an answer is missing, empty or not the assistant's, both are equal, or their prompts differ.
    """
    for label in LABELS:
        if has(row, label):
            raise RowProblem(label, "beside chosen and rejected", "a row is a pair, or one answer with a label")
    chosen_key, rejected_key = columns["chosen"], columns["rejected"]
    chosen = answer_of(field(row, chosen_key), chosen_key, columns)
    rejected = answer_of(field(row, rejected_key), rejected_key, columns)
    prompt = prompt_of(row, columns)
    if chosen[0]["role"] != "assistant" or rejected[0]["role"] != "assistant":
        prompt, chosen, rejected = _divided(prompt, chosen, rejected, columns)
    elif not prompt:
        raise RowProblem(columns["prompt"], "missing", "give it, map it (data.sources.NAME.columns), or make both answers whole conversations")
    for answer, key in ((chosen, chosen_key), (rejected, rejected_key)):
        check_answer(answer, key)
    if chosen == rejected:
        raise _equal(rejected_key)
    prompt = with_system(prompt, row, columns)
    margin, tools = margin_of(row, columns["margin"]), tools_of(row.get(columns["tools"]), columns["tools"])
    return [
        Chat([*prompt, *answer], tools, role=role, margin=margin, prompt=len(prompt))
        for answer, role in ((chosen, Role.CHOSEN), (rejected, Role.REJECTED))
    ]


def _divided(
    prompt: list[Message], chosen: list[Message], rejected: list[Message], columns: dict[str, str]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Returns (prompt, chosen answer, rejected answer) of two whole conversations."""
    for answer, name in ((chosen, "chosen"), (rejected, "rejected")):
        if answer[-1]["role"] != "assistant":
            check_answer(answer, columns[name])
    if chosen == rejected:
        raise _equal(columns["rejected"])
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == min(len(chosen), len(rejected)):
        shared -= 1  # One conversation goes on where the other ends: their last common turn begins both answers.
    before, answers = chosen[:shared], (chosen[shared:], rejected[shared:])
    if any(turn["role"] not in ("assistant", "tool") for answer in answers for turn in answer):
        raise _differ(columns["rejected"])
    while before and before[-1]["role"] == "assistant":
        answers = ([before[-1], *answers[0]], [before[-1], *answers[1]])
        before = before[:-1]
    if not before or (prompt and prompt not in (before, before[1:])):
        raise _differ(columns["prompt"] if before else columns["rejected"])
    if not any(turn["role"] == "user" for turn in before):
        raise RowProblem(columns["chosen"], "no prompt", "an answer needs what it answers")
    return before, *answers


def _equal(key: str) -> RowProblem:
    return RowProblem(key, "the same answer as chosen", "nothing can be preferred; leave this row out")


def _differ(key: str) -> RowProblem:
    return RowProblem(key, "the prompts of the pair differ", "both answers need one and the same prompt")
