"""One chunk of a file as tokenised documents: what each reading process does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipelines.answers import Answers, Item, Mark, answer_only, items_of, screened_answers
from data_pipelines.formats import FORMATS
from data_pipelines.formats.document import Chat, Document, Text
from data_pipelines.gates import CONTAMINATED, Gates, Looked
from data_pipelines.privacy.report import Found
from data_pipelines.privacy.screen import DROPPED, Screen
from data_pipelines.problems import WHOLE_ROW, BadRow, RowProblem, type_name
from data_pipelines.roles import is_preference
from data_pipelines.rows import rows_of
from data_pipelines.sources import Chunk, InputFile
from data_pipelines.split import group_name, hash_bytes, hash_key
from data_pipelines.template import ChatTemplate, Rendered
from data_pipelines.texts import text_of_row
from data_pipelines.tokenize import Encoder, Tokens


class Encoded(NamedTuple):
    """A document: line and number of its row in the chunk, hash of its group (None: its content's), tokens or why there are none."""

    line: int
    row: int
    group: int | None
    tokens: Tokens | RowProblem


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How the rows of one file are read: a format's name and a column for each of its fields."""

    name: str
    columns: dict[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """A chunk and how to read it; `format` is None while no row has shown it."""

    chunk: Chunk
    format: FileFormat | None
    problem: RowProblem | None = None


@dataclass(slots=True)
class Lost:
    """What the over-length policy cost: documents, and tokens that would have been learned."""

    documents: int = 0
    supervised: int = 0

    def add(self, other: Lost) -> None:
        self.documents += other.documents
        self.supervised += other.supervised


@dataclass(slots=True)
class ChunkResult:
    """The documents of one chunk, flat.

    Attributes:
        file: which file it is from.
        ids: token ids of all documents, one after the other; mask: True where learned.
        lengths: tokens of each document `[D]`; rows: its input line; groups: hash of its group;
            marked: number of its row among the rows of the chunk that the gates looked at.
    """

    file: int
    num_bytes: int
    rows_read: int = 0
    bad: list[BadRow] = field(default_factory=list)
    lost: dict[str, Lost] = field(default_factory=dict)
    private: Found = field(default_factory=Found)
    looked: Looked = field(default_factory=Looked)
    ids: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    mask: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    groups: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    marked: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    answers: Answers | None = None


@dataclass(slots=True)
class Reader:
    """Everything a chunk needs to become documents; one per preparation, inherited by the reading processes.

    Attributes:
        files: all input files, as numbered in the chunks.
        encoder: tokenizer with its labels.
        template: for chats; None when every source is plain text.
        objective: sft learns assistant turns, cpt everything.
        screen: looks for identifiers; None does not.
        gates: look for duplicates and evaluation items; None do not.
    """

    files: Sequence[InputFile]
    encoder: Encoder
    template: ChatTemplate | None
    objective: str
    system_prompt: str | None
    group_by: str | None
    sequence_length: int
    overlength: str
    screen: Screen | None = None
    gates: Gates | None = None

    def read(self, task: Task) -> ChunkResult:
        """Returns the documents of one chunk, and its bad rows."""
        chunk = task.chunk
        file = self.files[chunk.file]
        result = ChunkResult(chunk.file, chunk.num_bytes)
        if task.problem is not None:
            result.rows_read = int(chunk.first > 0)
            result.bad.append(bad_row(file, chunk.first, task.problem))
            return result
        lines: list[int] = []
        groups: list[int | None] = []
        leave_out: list[bool] = []
        rendered: list[Rendered | str] = []
        row_numbers: list[int] = []
        looked_at: list[tuple[int, str]] = []
        marks: list[Mark] = []
        for line, row in rows_of(chunk, file.kind):
            result.rows_read += 1
            if isinstance(row, RowProblem):
                result.bad.append(bad_row(file, line, row))
                continue
            try:
                group = self._group(row)
                documents = self._documents(row, task.format)
                screened = self._screened(documents)
                ready = [self._render(document) for document, _ in screened]
            except RowProblem as problem:
                result.bad.append(bad_row(file, line, problem))
                continue
            row_numbers += [len(looked_at)] * len(ready)
            looked_at.append((line, text_of_row(document for document, _ in screened) if self.gates else ""))
            result.private.note(sum((counts for _, counts in screened), Counter()))
            for _, counts in screened:
                leave_out.append(self.screen is not None and self.screen.mode == "drop" and bool(counts))
            rendered += ready
            lines += [line] * len(ready)
            groups += [group] * len(ready)
            if self.has_roles:
                marks += [Mark.of(document) for document in documents]
        tokens = self._encode(rendered)
        leaks = self._look(result, looked_at)
        if self.has_roles:
            encoded = list(zip(lines, groups, tokens, strict=True))
            self._collect_items(result, file, items_of(encoded, marks, leave_out), leaks)
        else:
            plain = [Encoded(*one) for one in zip(lines, row_numbers, groups, tokens, strict=True)]
            plain = without(plain, leave_out, result.lost, DROPPED)
            plain = without(plain, [one.row in leaks for one in plain], result.lost, CONTAMINATED)
            self._collect(result, file, plain)
        return result

    def _look(self, result: ChunkResult, rows: list[tuple[int, str]]) -> set[int]:
        """Lets the gates look at the lines and texts of the rows; returns the numbers of those to leave out."""
        if self.gates is None:
            return set()
        result.looked = self.gates.look(result.file, [line for line, _ in rows], [text for _, text in rows])
        return set(result.looked.leaking_rows) if self.gates.drops_leaks else set()

    @property
    def has_roles(self) -> bool:
        return is_preference(self.objective)

    def _screened(self, documents: list[Document]) -> list[tuple[Document, Counter[str]]]:
        if self.screen is None:
            return [(document, Counter()) for document in documents]
        if self.has_roles:
            return screened_answers(self.screen, documents)
        return [self.screen.screened(document) for document in documents]

    def _documents(self, row: dict[str, Any], form: FileFormat | None) -> list[Document]:
        assert form is not None  # a chunk with a row that parses has shown the format
        return FORMATS[form.name].documents(row, form.columns)

    def _group(self, row: dict[str, Any]) -> int | None:
        """Returns the hash of the row's group; None when rows are their own groups."""
        if self.group_by is None:
            return None
        value: Any = row
        for part in self.group_by.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None or (isinstance(value, str) and not group_name(value)):
            raise RowProblem(self.group_by, "missing", "every row needs it: data.group_by")
        if not isinstance(value, (str, int)):
            raise RowProblem(
                self.group_by, f"{type_name(value)}, not a text or a whole number", "expected a key: data.group_by"
            )
        surrogates = self.screen.surrogates if self.screen else None
        # The hash is kept in the store: of masked data it must not be one that trying every card number finds.
        return surrogates.group(group_name(value)) if surrogates else hash_key(value)

    def _render(self, document: Document) -> Rendered | str:
        """Returns a chat with its spans, or a plain text."""
        if isinstance(document, Text):
            if self.objective != "cpt":
                raise RowProblem(WHOLE_ROW, "plain text has no assistant turn", "objective=cpt learns plain text")
            return document.text
        assert self.template is not None
        messages = document.messages
        if self.system_prompt and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system_prompt}, *messages]
        rendered = self.template.render(Chat(messages, document.tools))
        return answer_only(rendered, document) if self.has_roles else rendered

    def _encode(self, rendered: list[Rendered | str]) -> list[Tokens | RowProblem]:
        """Returns tokens in the order of `rendered`, texts and chats each in one batch."""
        if not rendered:
            return []
        if isinstance(rendered[0], str):  # a file has one format, so a chunk holds one kind
            return self.encoder.texts([text for text in rendered if isinstance(text, str)])
        return self.encoder.chats([chat for chat in rendered if isinstance(chat, Rendered)])

    def _collect(
        self, result: ChunkResult, file: InputFile, encoded: list[Encoded]
    ) -> None:
        """Applies the over-length policy and joins the documents."""
        kept: list[Tokens] = []
        rows: list[int] = []
        groups: list[int] = []
        marked: list[int] = []
        for line, row, group, tokens in encoded:
            if isinstance(tokens, RowProblem):
                result.bad.append(bad_row(file, line, tokens))
                continue
            if len(tokens.ids) > self.sequence_length:
                if self.overlength == "error":
                    result.bad.append(bad_row(file, line, self._too_long(len(tokens.ids))))
                    continue
                pieces = self._fit(tokens, result.lost)
            else:
                pieces = [tokens]
            # Without a group of its own a row is grouped by its content: equal rows never stand on both sides.
            own = hash_bytes(tokens.ids.tobytes()) if group is None else group
            kept += pieces
            rows += [line] * len(pieces)
            groups += [own] * len(pieces)
            marked += [row] * len(pieces)
        if kept:
            result.ids = np.concatenate([tokens.ids for tokens in kept])
            result.mask = np.concatenate([tokens.mask for tokens in kept])
            result.lengths = np.array([len(tokens.ids) for tokens in kept], np.int64)
            result.rows = np.array(rows, np.int64)
            result.groups = np.array(groups, np.int64)
            result.marked = np.array(marked, np.int64)

    def _collect_items(self, result: ChunkResult, file: InputFile, items: list[Item], leaks: set[int]) -> None:
        """Applies the over-length policy to the documents of each row at once and joins them."""
        kept: list[Item] = []
        marked: list[int] = []
        for row, item in enumerate(items):
            if item.is_left_out or row in leaks:
                reason = DROPPED if item.is_left_out else CONTAMINATED
                result.lost.setdefault(reason, Lost()).add(Lost(1, item.learned))
                continue
            problem = item.problem
            if problem is None and item.size > self.sequence_length and self.overlength == "error":
                problem = self._too_long(item.size, "truncate or drop")
            if problem is not None:
                result.bad.append(bad_row(file, item.line, problem))
                continue
            before = item.learned
            fitted = item.fitted(self.sequence_length, self.overlength)
            if fitted is not item:
                policy = "dropped" if self.overlength == "drop" else "truncated"
                if fitted is None and self.overlength != "drop":
                    policy += ", nothing left to learn"
                result.lost.setdefault(policy, Lost()).add(Lost(1, before - (fitted.learned if fitted else 0)))
            if fitted:
                kept.append(fitted.scored() if self.objective == "reward" else fitted)
                marked += [row] * len(fitted.tokens)
        if kept:
            tokens = [document for item in kept for document in item.tokens]
            result.ids = np.concatenate([document.ids for document in tokens])
            result.mask = np.concatenate([document.mask for document in tokens])
            result.lengths = np.array([len(document.ids) for document in tokens], np.int64)
            result.rows = np.array([item.line for item in kept for _ in item.tokens], np.int64)
            result.groups = np.array([item.key for item in kept for _ in item.tokens], np.int64)
            result.marked = np.array(marked, np.int64)
            result.answers = Answers.of(kept)

    def _too_long(self, length: int, remedies: str = "truncate, drop or split") -> RowProblem:
        return RowProblem(
            WHOLE_ROW,
            f"{length:,} tokens, {self.sequence_length:,} fit",
            f"data.overlength={remedies}; or data.sequence_length",
            reason=f"more than {self.sequence_length:,} tokens",
        )

    def _fit(self, tokens: Tokens, lost: dict[str, Lost]) -> list[Tokens]:
        """Returns what stays of a document that is too long, counting the learned tokens that go."""
        size = self.sequence_length
        before = int(np.count_nonzero(tokens.mask))
        count = {"drop": 0, "truncate": 1}.get(self.overlength, -(-len(tokens.ids) // size))
        pieces = [_piece(tokens, i * size, size) for i in range(count)]
        pieces = [piece for piece in pieces if piece.mask.any()]
        after = sum(int(np.count_nonzero(piece.mask)) for piece in pieces)
        policy = {"drop": "dropped", "truncate": "truncated", "split": "split"}[self.overlength]
        if not pieces and self.overlength != "drop":
            policy = f"{policy}, nothing left to learn"
        lost.setdefault(policy, Lost()).add(Lost(1, before - after))
        return pieces


def without(encoded: list[Encoded], leave_out: list[bool], lost: dict[str, Lost], reason: str) -> list[Encoded]:
    """Returns the documents that are not left out, counting those that are and what could have been learned from them."""
    for one, out in zip(encoded, leave_out, strict=True):
        if out:
            learned = 0 if isinstance(one.tokens, RowProblem) else int(np.count_nonzero(one.tokens.mask))
            lost.setdefault(reason, Lost()).add(Lost(1, learned))
    return [document for document, out in zip(encoded, leave_out, strict=True) if not out]


def _piece(tokens: Tokens, start: int, size: int) -> Tokens:
    """Returns `size` tokens from `start`; the first of them is not learned, nothing predicts it."""
    mask = tokens.mask[start : start + size].copy()
    mask[:1] = False
    return Tokens(tokens.ids[start : start + size], mask)


def bad_row(file: InputFile, line: int, problem: RowProblem) -> BadRow:
    """Returns the problem with its place."""
    return BadRow(
        file.source, file.path, line, problem.key, problem.problem, problem.remedy, problem.reason, file.place
    )


def count_lost(results: dict[str, Lost], more: dict[str, Lost]) -> None:
    """Adds the losses of one chunk to those of its source."""
    for policy, lost in more.items():
        results.setdefault(policy, Lost()).add(lost)
