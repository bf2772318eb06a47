"""The loader yields the order's rows, whatever it read ahead; its thread's errors arrive, and it ends."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipelines.collate import collate
from data_pipelines.index import Store
from data_pipelines.loader import Loader
from data_pipelines.order import Order, rank_slice
from tests.small_store import small_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return small_store(tmp_path, np.random.default_rng(3).integers(8, 20, 30).tolist())


def _order(store: Store) -> Order:
    return Order(num_rows=store.num_rows, fingerprint=store.fingerprint, seed=1, global_batch_size=5)


def _loader(store: Store, dp_rank: int = 0, dp_size: int = 1) -> Loader:
    return Loader(
        store,
        _order(store),
        dp_rank=dp_rank,
        dp_size=dp_size,
        micro_batch_size=2,
        pad_token_id=0,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("positions", [[0, 1, 2, 3], [10**7, 10**7 + 1], [3, 3, 4, 9, 0]])
def test_windows_are_the_orders_rows_at_any_position(store: Store, positions: list[int]) -> None:
    loaders = [_loader(store, rank, 2) for rank in range(2)]
    for position in positions:
        rows = _order(store).rows(position)
        for rank, loader in enumerate(loaders):
            window = loader.window(position)
            expected = rank_slice(rows, rank, 2, 2)
            assert [batch.row_ids.tolist() for batch in window] == [part.tolist() for part in expected]
            for batch, part in zip(window, expected, strict=True):
                assert torch.equal(batch.input_ids, collate(store, part, 0).input_ids)
    for loader in loaders:
        loader.close()


def test_an_error_in_the_thread_reaches_the_consumer(store: Store) -> None:
    loader = _loader(store)
    loader.window(0)
    loader._ahead[1].result()  # type: ignore[index]
    store.row_offsets = store.row_offsets[:1]
    loader.window(1)  # read before the damage; reads position 2 after it
    with pytest.raises(IndexError):
        loader.window(2)
    loader.close()


def test_close_ends_the_thread(store: Store) -> None:
    before = threading.active_count()
    loader = _loader(store)
    loader.window(0)
    assert threading.active_count() == before + 1
    loader.close()
    assert threading.active_count() == before
