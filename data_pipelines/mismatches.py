"""Answers with a label on their way into a store: each is followed by its prompt with the completion to another prompt.

Of these mismatched answers kto makes its baseline, an estimate of how far the model is from the reference (arXiv 2402.01306,
section 4). The other prompt is that of the next row with a different one, round within the source and the side of the split,
so nothing held out is seen in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from data_pipelines.roles import Role
from data_pipelines.split import hash_bytes
from data_pipelines.store import Document, StoreWriter

if TYPE_CHECKING:
    from data_pipelines.scanning import Scan

Int64 = NDArray[np.int64]
_BLOCK_TOKENS = 1 << 20


def next_of(prompts: Int64) -> Int64:
    """Returns for each document the next one with another prompt, the first ones behind the last; empty without any. `[D]`."""
    # Where a stretch of equal prompts begins: behind a document the next such place has another prompt.
    begins = np.flatnonzero(prompts != np.roll(prompts, 1))
    if not len(begins):
        return begins
    return begins[np.searchsorted(begins, np.arange(len(prompts)), side="right") % len(begins)]


def _following(found: Scan, source: Int64, times: Int64, side: str) -> Int64:
    """Returns for each document that is written the one whose completion it gets; else -1. `[D]`.

    Raises:
        DataError: a source has one prompt only on this side.
    """
    assert found.ids is not None and found.answers is not None
    starts = np.cumsum(found.lengths) - found.lengths
    ends = starts + found.answers.prompt
    following = np.full(len(source), -1, np.int64)
    for number in np.unique(source[times > 0]):
        mine = np.flatnonzero((source == number) & (times > 0))
        prompts = np.array([hash_bytes(found.ids[starts[i] : ends[i]].tobytes()) for i in mine], np.int64)
        others = next_of(prompts)
        if not len(others):
            raise DataError(
                f"source {found.files[found.file_of[mine[0]]].source}: one prompt only in the {len(mine):,} answers {side}, and "
                "objective=kto makes its baseline of answers to another prompt of the same source and side; add rows with other "
                "prompts, join the source to another one, or hold out another share (data.validation)"
            )
        following[mine] = mine[others]
    return following


def fill_labelled(writer: StoreWriter, found: Scan, source: Int64, times: Int64, capacity: int, *, side: str) -> int:
    """Adds every document `times` times, each with its mismatched one as an item of two.

    Args:
        writer: of one side of the split.
        found: the documents, with their roles.
        source: of each document `[D]`; times: how often it is written, 0 on the other side `[D]`.
        capacity: tokens of a row; a mismatched completion that does not fit is cut.
        side: of the split, in words.

    Returns:
        How many mismatched completions were cut.

    Raises:
        DataError: a source has one prompt only on this side.
    """
    assert found.ids is not None and found.mask is not None and found.answers is not None
    ends = np.cumsum(found.lengths)
    starts = ends - found.lengths
    following = _following(found, source, times, side)
    num_cut = waiting = 0
    documents: list[Document] = []
    for i in np.flatnonzero(times):
        other = int(following[i])
        ids, mask = found.ids[starts[i] : ends[i]], found.mask[starts[i] : ends[i]]
        prompt = int(found.answers.prompt[i])
        begin = int(starts[other] + found.answers.prompt[other])
        room = capacity - len(ids) - prompt
        end = min(int(ends[other]), begin + room)
        num_cut += end < int(ends[other])
        about = {"source": int(source[i]), "group": int(found.groups[i]), "row": int(found.rows[i])}
        own = Document(ids, mask, **about, role=int(found.answers.role[i]))
        mismatched = Document(
            np.concatenate([ids[:prompt], found.ids[begin:end]]),
            np.concatenate([np.zeros(prompt, np.bool_), found.mask[begin:end]]),
            **about,
            role=Role.MISMATCHED,
        )
        documents += [own, mismatched] * int(times[i])
        waiting += (len(own.ids) + len(mismatched.ids)) * int(times[i])
        if waiting >= _BLOCK_TOKENS:
            _add(writer, documents)
            documents, waiting = [], 0
    if documents:
        _add(writer, documents)
    return num_cut


def _add(writer: StoreWriter, documents: list[Document]) -> None:
    """Adds items of two documents, all at once: a store keeps fewer and larger arrays in memory."""
    writer.add_many(
        np.concatenate([document.ids for document in documents]),
        np.concatenate([document.mask for document in documents]),
        np.array([len(document.ids) for document in documents], np.int64),
        source=np.array([document.source for document in documents], np.int64),
        group=np.array([document.group for document in documents], np.int64),
        row=np.array([document.row for document in documents], np.int64),
        role=np.array([document.role for document in documents], np.uint8),
        margin=np.array([document.margin for document in documents], np.float32),
    )
