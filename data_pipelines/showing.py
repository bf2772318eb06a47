"""Packed rows as a person can read them: pieces of text with their labels, document by document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipelines.collate import IGNORED, Batch
from data_pipelines.index import Store
from data_pipelines.roles import Role

BAR_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of one or more tokens (a character may take several) that share a label; `is_learned` by its label."""

    text: str
    ids: tuple[int, ...]
    is_learned: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One document of a row: where it comes from, its size, its pieces; padding has no origin and no pieces."""

    origin: str
    num_tokens: int
    num_learned: int
    pieces: tuple[Piece, ...]

    @property
    def is_padding(self) -> bool:
        return not self.origin


def parts_of(batch: Batch, store: Store, tokenizer: Any) -> list[list[Part]]:
    """Returns the documents of each row of a collated batch, from the very tensors that training gets.

    A label belongs to the token at its own position: that token is what the model learns to write.
    """
    ids, labels = batch.input_ids.reshape(-1).tolist(), batch.labels.reshape(-1).tolist()
    bounds = batch.cu_seqlens.tolist()
    length = batch.input_ids.shape[1]
    rows: list[list[Part]] = [[] for _ in range(batch.input_ids.shape[0])]
    for number, document in enumerate(batch.document_ids.tolist()):
        begin, end = bounds[number], bounds[number + 1]
        if document < 0:
            part = Part("", end - begin, 0, ())
        else:
            source, line = store.origin(document)
            learned = [label != IGNORED for label in labels[begin:end]]
            role = "" if store.document_role is None else f", {Role(int(store.document_role[document])).name.lower()}"
            pieces = tuple(pieces_of(ids[begin:end], learned, tokenizer))
            part = Part(f"{source}, row {line:,}{role}", end - begin, sum(learned), pieces)
        rows[begin // length].append(part)
    return rows


def pieces_of(ids: list[int], learned: list[bool], tokenizer: Any) -> Iterator[Piece]:
    """Yields pieces; tokens that hold only part of a character wait for the rest of it."""
    waiting: list[int] = []
    for place, token in enumerate(ids):
        waiting.append(token)
        last = place + 1 == len(ids) or learned[place + 1] != learned[place]
        text = tokenizer.decode(waiting, clean_up_tokenization_spaces=False)
        if last or not text.endswith("�"):
            yield Piece(text, tuple(waiting), learned[place])
            waiting = []


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many documents have a length in [edges[i], edges[i + 1])."""

    edges: list[int]
    counts: list[int]

    def lines(self) -> list[str]:
        """Returns one line per bin, with a bar."""
        most = max(self.counts, default=1) or 1
        width = len(f"{self.edges[-1]:,}")
        return [
            f"{low:>{width},} - {high - 1:<{width},} {'█' * round(BAR_WIDTH * n / most) or ('▏' if n else '')} {n:,}"
            for low, high, n in zip(self.edges, self.edges[1:], self.counts, strict=False)
        ]


def length_histogram(store: Store, bins: int = 12) -> Histogram:
    """Returns the histogram of the documents' lengths in tokens."""
    lengths = np.diff(store.document_offsets)
    high = int(lengths.max(initial=1)) + 1
    step = max(1, -(-high // bins))
    edges = list(range(0, high + step, step))
    counts, _ = np.histogram(lengths, bins=np.array(edges))
    return Histogram(edges, counts.tolist())
