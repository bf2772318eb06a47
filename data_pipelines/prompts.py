"""Prompts: from messages a person typed, and from held-out documents as they stand in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.schema import DataSection
from data_pipelines.formats.document import Message
from data_pipelines.index import Store
from data_pipelines.roles import Role
from data_pipelines.split import keyed
from data_pipelines.tokenize import read_template, template_of

# Of a plain text, this many tokens are given and the rest is the answer.
_TEXT_PROMPT_TOKENS = 32


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A held-out document up to its last assistant turn, and what stands there; token ids."""

    document: int
    prompt: list[int]
    answer: list[int]


def chat_prompt(tokenizer: Any, messages: list[Message], data: DataSection) -> list[int]:
    """Returns the token ids that ask for the next assistant turn, as training writes them.

    Args:
        tokenizer: of the model.
        messages: the chat so far, {role, content} each, ending with a user's turn.
        data: its system_prompt, template_args and chat_template apply.

    Raises:
        DataError: no chat template; RowProblem: the template refuses these messages.
    """
    template = template_of(tokenizer, dict(data.template_args), read_template(data.chat_template))
    if data.system_prompt and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": data.system_prompt}, *messages]
    ids = tokenizer(template.prompt(messages), add_special_tokens=False)["input_ids"]
    return [int(token) for token in ids]


def stop_ids(tokenizer: Any, data: DataSection) -> list[int]:
    """Returns the tokens that end a reply: the template's end-of-turn token and the tokenizer's eos."""
    found = [tokenizer.eos_token_id]
    if tokenizer.chat_template or data.chat_template:
        template = template_of(tokenizer, dict(data.template_args), read_template(data.chat_template))
        found.insert(0, tokenizer.convert_tokens_to_ids(template.end_of_turn))
    return list(dict.fromkeys(int(token) for token in found if token is not None))


def held_out_prompts(validation: Store | None, count: int) -> list[HeldOut]:
    """Returns the prompts of `count` held-out documents (fewer when there are fewer), always the same ones."""
    if validation is None or not validation.num_documents:
        return []
    order = np.argsort(keyed(validation.document_group.astype(np.int64), "prompts"), kind="stable")
    if validation.document_role is not None:  # of answers to one prompt, the one to learn
        order = order[np.isin(validation.document_role[order], (Role.CHOSEN, Role.DESIRABLE))]
    made: list[HeldOut] = []
    for document in order:
        if len(made) == count:
            break
        ids, mask = validation.document(int(document))
        start, end = last_turn(mask)
        if start:
            made.append(HeldOut(int(document), [int(i) for i in ids[:start]], [int(i) for i in ids[start:end]]))
    return made


def last_turn(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[int, int]:
    """Returns [start, end) of the last learned run of tokens; (0, 0) when there is none.

    When everything but the first token is learned (plain text), the first 32 tokens or the first half are given.
    """
    learned = np.flatnonzero(mask)
    if not len(learned):
        return 0, 0
    end = int(learned[-1]) + 1
    breaks = np.flatnonzero(np.diff(learned) > 1)
    start = int(learned[breaks[-1] + 1]) if len(breaks) else int(learned[0])
    if start <= 1:
        start = max(1, min(_TEXT_PROMPT_TOKENS, end // 2))
    return start, end
