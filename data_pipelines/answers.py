"""Documents with roles: the answers of one row become an item of documents that share a packed row.

A row of pairs gives CHOSEN and REJECTED, a row with a label one document, which is followed by MISMATCHED when the store is
written: the same prompt with a completion to another one. Only the completion is learned.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from configs.schema import DataSection
from data_pipelines.formats.document import Chat, Document
from data_pipelines.privacy.screen import Screen
from data_pipelines.problems import WHOLE_ROW, RowProblem
from data_pipelines.roles import Role, is_preference
from data_pipelines.split import hash_bytes
from data_pipelines.template import Rendered
from data_pipelines.tokenize import Tokens


@dataclass(frozen=True, slots=True)
class Mark:
    """What a document is: its role, and by how much a chosen answer is better."""

    role: Role
    margin: float

    @classmethod
    def of(cls, document: Document) -> Mark:
        return cls(document.role, document.margin) if isinstance(document, Chat) else cls(Role.PLAIN, 0.0)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the documents of a chunk, or of all of them, are: `role` `[D]`, `margin` `[D]`, tokens before the completion."""

    role: NDArray[np.uint8]
    margin: NDArray[np.float32]
    prompt: NDArray[np.int64]

    @classmethod
    def of(cls, items: Sequence[Item]) -> Answers:
        """Returns those of the documents of `items`, one after the other."""
        return cls(
            np.array([mark.role for item in items for mark in item.marks], np.uint8),
            np.array([mark.margin for item in items for mark in item.marks], np.float32),
            np.array([item.prompt for item in items for _ in item.marks], np.int64),
        )

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Returns those of all chunks."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("role", "margin", "prompt")))

    @property
    def per_item(self) -> int:
        """Documents that one row gave: 2 in pairs, 1 with labels."""
        return 2 if self.role[0] == Role.CHOSEN else 1


@dataclass(frozen=True, slots=True)
class Item:
    """The documents of one row, with one prompt of `prompt` tokens; `group` is None without data.group_by."""

    line: int
    group: int | None
    marks: tuple[Mark, ...]
    tokens: tuple[Tokens, ...]
    prompt: int
    problem: RowProblem | None = None
    is_left_out: bool = False

    @property
    def learned(self) -> int:
        """Tokens that are learned."""
        return sum(int(np.count_nonzero(tokens.mask)) for tokens in self.tokens)

    @property
    def size(self) -> int:
        """Tokens that the item takes in a row, at least: of a mismatched completion only the first is certain."""
        own = sum(len(tokens.ids) for tokens in self.tokens)
        return own if len(self.tokens) > 1 else own + self.prompt + 1

    @property
    def key(self) -> int:
        """Hash of the group; without one of its own, of the answers, in whichever order."""
        if self.group is not None:
            return self.group
        return hash_bytes(b"".join(sorted(tokens.ids.tobytes() for tokens in self.tokens)))

    def fitted(self, capacity: int, overlength: str) -> Item | None:
        """Returns the item as it fits a row of `capacity` tokens, itself if it does; None: nothing is left of it.

        Completions lose their ends, all at the same number of tokens: the most with which they fit.
        """
        if self.size <= capacity:
            return self
        room = capacity - 2 * self.prompt
        if overlength == "drop" or room < 2:
            return None
        shortest = min(len(tokens.ids) - self.prompt for tokens in self.tokens) if len(self.tokens) > 1 else room
        most = self.prompt + max(room // 2, room - shortest if len(self.tokens) > 1 else 0)
        cut = tuple(Tokens(tokens.ids[:most], tokens.mask[:most]) for tokens in self.tokens)
        if len({tokens.ids.tobytes() for tokens in cut}) < len(cut) or not all(tokens.mask.any() for tokens in cut):
            return None
        return replace(self, tokens=cut)

    def scored(self) -> Item:
        """Returns the item with the last token of each document as its only label: a reward is one number there."""
        made = []
        for tokens in self.tokens:
            mask = np.zeros(len(tokens.ids), np.bool_)
            mask[-1] = True
            made.append(Tokens(tokens.ids, mask))
        return replace(self, tokens=tuple(made))


def answer_only(rendered: Rendered, document: Chat) -> Rendered:
    """Returns the chat with the spans of the answer's turns only."""
    turns = sum(message["role"] == "assistant" for message in document.messages[document.prompt :])
    return Rendered(rendered.text, rendered.spans[-turns:])


def items_of(
    encoded: Sequence[tuple[int, int | None, Tokens | RowProblem]], marks: Sequence[Mark], leave_out: Sequence[bool]
) -> list[Item]:
    """Returns one item per row: consecutive documents up to the next one that begins a row."""
    edges = [i for i, mark in enumerate(marks) if mark.role != Role.REJECTED] + [len(marks)]
    return [
        _item(encoded[begin:end], marks[begin:end], any(leave_out[begin:end]))
        for begin, end in itertools.pairwise(edges)
    ]


def _item(
    encoded: Sequence[tuple[int, int | None, Tokens | RowProblem]], marks: Sequence[Mark], is_left_out: bool
) -> Item:
    line, group, _ = encoded[0]
    found = [tokens for _, _, tokens in encoded]
    problem = next((tokens for tokens in found if isinstance(tokens, RowProblem)), None)
    tokens = tuple(_ended(tokens) for tokens in found if isinstance(tokens, Tokens))
    prompt = int(np.argmax(tokens[0].mask)) if tokens else 0
    if problem is None:
        problem = _unequal(tokens, prompt)
    return Item(line, group, tuple(marks), tokens, prompt, problem, is_left_out)


def _ended(tokens: Tokens) -> Tokens:
    """Returns the document up to its last learned token: what a template writes behind it decides nothing."""
    end = len(tokens.mask) - int(np.argmax(tokens.mask[::-1]))
    return Tokens(tokens.ids[:end], tokens.mask[:end])


def _unequal(tokens: Iterable[Tokens], prompt: int) -> RowProblem | None:
    """Returns what is wrong when the documents do not start with the same tokens, or are the same altogether."""
    first, *others = tokens
    for other in others:
        if int(np.argmax(other.mask)) != prompt or not np.array_equal(first.ids[:prompt], other.ids[:prompt]):
            return RowProblem(
                WHOLE_ROW,
                "the prompts of the pair differ once written",
                "the chat template writes a prompt by its answer: data.template_args or data.chat_template",
            )
        if np.array_equal(first.ids, other.ids):
            return RowProblem(WHOLE_ROW, "both answers are the same text", "nothing can be preferred; leave this row out")
    return None


def screened_answers(screen: Screen, documents: Sequence[Document]) -> list[tuple[Document, Counter[str]]]:
    """Returns the documents of one row as they may be learned, and their identifiers; those of the prompt count once."""
    first, counts = screen.screened(documents[0])
    made = [(first, counts)]
    for document in documents[1:]:
        assert isinstance(first, Chat) and isinstance(document, Chat)
        answer, counts = screen.screened(replace(document, messages=document.messages[document.prompt :]))
        assert isinstance(answer, Chat)
        made.append((replace(answer, messages=[*first.messages[: document.prompt], *answer.messages]), counts))
    return made


def check_options(data: DataSection, objective: str) -> None:
    """Refuses options that documents with roles cannot have.

    Raises:
        DataError: data.overlength=split.
    """
    if is_preference(objective) and data.overlength == "split":
        raise DataError(
            f"data.overlength=split: objective={objective} compares whole answers; use truncate or drop, which are counted"
        )
