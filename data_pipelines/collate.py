"""Packed rows as tensors.

Legend: B rows, T = sequence_length, D documents in this micro-batch, N labelled positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.index import Store

IGNORED = -100


@dataclass(slots=True)
class Batch:
    """One micro-batch of packed rows.

    Attributes:
        input_ids: `[B, T]` int64.
        labels: `[B, T]` int64, not shifted; -100 is not learned, the first token of every document never is.
        position_ids: `[B, T]` int64, from 0 in each document.
        cu_seqlens: `[D + 1]` int32, where documents start in the flattened `[B * T]` sequence. The padding tail of a
            row is a document without labels, and so is an empty row.
        max_seqlen: longest document, in tokens.
        target_index: `[N]` int64, b * T + t of the position that predicts the label at t + 1.
        targets: `[N]` int64, those labels.
        target_document: `[N]` int64, which of the D documents each belongs to.
        row_ids: `[B]` int64 rows of the store, -1 for an empty row.
        document_ids: `[D]` int64 documents of the store, -1 for padding.
        document_source: `[D]` int64 index into the store's sources, -1 for padding.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    target_index: Tensor
    targets: Tensor
    target_document: Tensor
    row_ids: NDArray[np.int64]
    document_ids: NDArray[np.int64]
    document_source: NDArray[np.int64]

    @property
    def num_targets(self) -> int:
        return self.targets.shape[0]

    def to(self, device: torch.device) -> Batch:
        """Returns the batch with its tensors on `device`; itself when they are there."""
        if self.input_ids.device == device:
            return self
        return Batch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
            max_seqlen=self.max_seqlen,
            target_index=self.target_index.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            target_document=self.target_document.to(device, non_blocking=True),
            row_ids=self.row_ids,
            document_ids=self.document_ids,
            document_source=self.document_source,
        )


@dataclass(slots=True)
class Arrays:
    """The same as `Batch`, as numpy arrays: what reading a store yields before torch sees it."""

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    cu_seqlens: NDArray[np.int32]
    document_ids: NDArray[np.int64]


def read_rows(store: Store, row_ids: NDArray[np.int64], pad_token_id: int) -> Arrays:
    """Returns the rows `row_ids` `[B]` (-1: an empty row) padded to `[B, T]`."""
    length = store.sequence_length
    shape = (len(row_ids), length)
    ids, labels = np.empty(shape, np.int64), np.empty(shape, np.int64)
    documents: list[NDArray[np.int64]] = []
    boundaries: list[NDArray[np.int64]] = []
    for place, row in enumerate(row_ids.tolist()):
        used = 0
        if row >= 0:
            first, last = int(store.row_offsets[row]), int(store.row_offsets[row + 1])
            starts = store.document_offsets[first : last + 1]
            begin, end = int(starts[0]), int(starts[-1])
            used = end - begin
            ids[place, :used] = store.ids[begin:end]
            _label(ids[place, :used], store.mask[begin:end], labels[place, :used])
            documents.append(np.arange(first, last))
            boundaries.append(starts[:-1] + (place * length - begin))
        if used < length:
            ids[place, used:] = pad_token_id
            labels[place, used:] = IGNORED
            documents.append(np.array([-1]))
            boundaries.append(np.array([place * length + used]))
    boundaries.append(np.array([len(row_ids) * length]))
    cu_seqlens = np.concatenate(boundaries)
    # Positions count up and fall back to 0 at each boundary.
    positions = np.arange(len(row_ids) * length)
    positions -= np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))
    return Arrays(ids, labels, positions.reshape(shape), cu_seqlens.astype(np.int32), np.concatenate(documents))


def _label(ids: NDArray[np.int64], mask: NDArray[np.bool_], out: NDArray[np.int64]) -> None:
    """Writes the id where `mask` is True and -100 elsewhere; 2.5 times faster than a masked copy."""
    np.subtract(ids, IGNORED, out=out)
    out *= mask
    out += IGNORED


def collate(store: Store, row_ids: NDArray[np.int64], pad_token_id: int) -> Batch:
    """Returns the rows `row_ids` `[B]` of the store (-1: an empty row) as one micro-batch on the CPU."""
    arrays = read_rows(store, row_ids, pad_token_id)
    # A row starts with a document, whose first token has no label: a label's predictor is always one to its left.
    labelled = np.flatnonzero(arrays.labels.reshape(-1) != IGNORED)
    real = arrays.document_ids >= 0
    counts = np.zeros(len(arrays.document_ids), np.int64)
    counts[real] = store.document_targets[arrays.document_ids[real]]
    source = np.full(len(arrays.document_ids), -1, np.int64)
    source[real] = store.document_source[arrays.document_ids[real]]
    return Batch(
        input_ids=torch.from_numpy(arrays.input_ids),
        labels=torch.from_numpy(arrays.labels),
        position_ids=torch.from_numpy(arrays.position_ids),
        cu_seqlens=torch.from_numpy(arrays.cu_seqlens),
        max_seqlen=int(np.diff(arrays.cu_seqlens).max()),
        target_index=torch.from_numpy(labelled - 1),
        targets=torch.from_numpy(arrays.labels.reshape(-1)[labelled]),
        target_document=torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
        row_ids=row_ids,
        document_ids=arrays.document_ids,
        document_source=source,
    )
