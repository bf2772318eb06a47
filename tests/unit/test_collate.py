"""Batches: tokens, labels, positions and boundaries of real rows, against a plain loop over documents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_pipelines.collate import IGNORED, Batch, collate, read_rows
from data_pipelines.index import Store
from tests.small_store import small_store

PAD = 499


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lengths = np.random.default_rng(3).integers(1, 20, 40).tolist()
    # 32 fills a row: a row without padding is in there too.
    return small_store(tmp_path_factory.mktemp("store"), [*lengths, 32])


def _plainly(store: Store, rows: list[int]) -> dict[str, list[int]]:
    """Returns the flattened fields of a batch, one document after the other."""
    out: dict[str, list[int]] = {name: [] for name in ("ids", "labels", "positions", "bounds", "documents", "sources")}
    for row in rows:
        begin = len(out["ids"])
        for document in store.row_documents(row).tolist() if row >= 0 else []:
            ids, mask = store.document(document)
            out["bounds"].append(len(out["ids"]))
            out["documents"].append(document)
            out["sources"].append(int(store.document_source[document]))
            out["ids"] += ids.tolist()
            out["labels"] += [int(i) if learned else IGNORED for i, learned in zip(ids, mask, strict=True)]
            out["positions"] += range(len(ids))
        missing = begin + store.sequence_length - len(out["ids"])
        if missing:
            out["bounds"].append(len(out["ids"]))
            out["documents"].append(-1)
            out["sources"].append(-1)
            out["ids"] += [PAD] * missing
            out["labels"] += [IGNORED] * missing
            out["positions"] += range(missing)
    out["bounds"].append(len(out["ids"]))
    return out


@pytest.mark.parametrize("rows", [[0], [1, 0, 5], [-1], [2, -1, -1], [-1, 3], "all"])
def test_a_batch_is_its_documents(store: Store, rows: list[int] | str) -> None:
    numbers = list(range(store.num_rows)) if isinstance(rows, str) else rows
    batch = collate(store, np.array(numbers), PAD)
    expected = _plainly(store, numbers)
    assert batch.input_ids.shape == (len(numbers), store.sequence_length)
    assert batch.input_ids.reshape(-1).tolist() == expected["ids"]
    assert batch.labels.reshape(-1).tolist() == expected["labels"]
    assert batch.position_ids.reshape(-1).tolist() == expected["positions"]
    assert batch.cu_seqlens.tolist() == expected["bounds"]
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.document_ids.tolist() == expected["documents"]
    assert batch.document_source.tolist() == expected["sources"]
    assert batch.max_seqlen == max(np.diff(expected["bounds"]))
    assert batch.row_ids.tolist() == numbers


def test_every_learned_token_is_a_target_once_and_predicted_from_its_left(store: Store) -> None:
    batch = collate(store, np.arange(store.num_rows), PAD)
    flat_ids, flat_labels = batch.input_ids.reshape(-1), batch.labels.reshape(-1)
    assert batch.num_targets == store.supervised == int((flat_labels != IGNORED).sum())
    assert torch.equal(flat_ids[batch.target_index + 1], batch.targets)
    assert torch.equal(flat_labels[batch.target_index + 1], batch.targets)
    # Predictor and target lie in the same document, and never in padding.
    bounds = batch.cu_seqlens.long()
    document = torch.searchsorted(bounds, batch.target_index, right=True) - 1
    assert torch.equal(document, torch.searchsorted(bounds, batch.target_index + 1, right=True) - 1)
    assert torch.equal(document, batch.target_document)
    assert (batch.document_ids[batch.target_document.numpy()] >= 0).all()


def test_padding_equal_to_a_real_token_changes_no_label(store: Store) -> None:
    real = int(store.ids[1])
    assert torch.equal(
        collate(store, np.arange(store.num_rows), real).labels, collate(store, np.arange(store.num_rows), PAD).labels
    )


def test_an_empty_row_teaches_nothing(store: Store) -> None:
    batch = collate(store, np.array([-1, -1]), PAD)
    assert batch.num_targets == 0
    assert batch.cu_seqlens.tolist() == [0, 32, 64]
    assert (batch.input_ids == PAD).all()


def test_arrays_need_no_torch(store: Store) -> None:
    arrays = read_rows(store, np.array([0, -1]), PAD)
    assert arrays.input_ids.dtype == arrays.labels.dtype == arrays.position_ids.dtype == np.int64


def test_moving_keeps_every_field(store: Store) -> None:
    batch = collate(store, np.array([0, -1]), PAD)
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    for name in Batch.__slots__:
        before, after = getattr(batch, name), getattr(moved, name)
        if isinstance(before, torch.Tensor):
            assert after.device.type == "meta"
            assert after.shape == before.shape
        else:
            assert after is before
