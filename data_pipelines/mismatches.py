"""Answers with a label on their way into a store: each is followed by its prompt with the completion of the next row.

Of these mismatched answers kto makes its baseline, an estimate of how far the model is from the reference (arXiv 2402.01306,
section 4). "Next" goes round within the source and the side of the split, so nothing held out is seen in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_pipelines.roles import Role
from data_pipelines.store import Document, StoreWriter

if TYPE_CHECKING:
    from data_pipelines.scanning import Scan

Int64 = NDArray[np.int64]
_BLOCK_TOKENS = 1 << 20


def next_of(source: Int64, times: Int64) -> Int64:
    """Returns for each document that is written the next one of its source, the first behind the last; else -1. `[D]`."""
    following = np.full(len(source), -1, np.int64)
    for number in np.unique(source):
        mine = np.flatnonzero((source == number) & (times > 0))
        following[mine] = np.roll(mine, -1)
    return following


def fill_labelled(writer: StoreWriter, found: Scan, source: Int64, times: Int64, capacity: int) -> int:
    """Adds every document `times` times, each with its mismatched one as an item of two.

    Args:
        writer: of one side of the split.
        found: the documents, with their roles.
        source: of each document `[D]`; times: how often it is written, 0 on the other side `[D]`.
        capacity: tokens of a row; a mismatched completion that does not fit is cut.

    Returns:
        How many mismatched completions were cut.
    """
    assert found.ids is not None and found.mask is not None and found.answers is not None
    ends = np.cumsum(found.lengths)
    starts = ends - found.lengths
    following = next_of(source, times)
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
