"""Global batches as this rank's micro-batches, read one window ahead by a thread."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from data_pipelines.collate import Batch, collate
from data_pipelines.index import Store
from data_pipelines.order import Order, rank_slice


class Loader:
    """Reads windows of micro-batches.

    Args:
        store: rows to read.
        order: which rows make up each global batch.
        dp_rank, dp_size: this rank's place among the data-parallel ranks.
        micro_batch_size: rows of one micro-batch.
        pad_token_id: fills the tail of a row; never learned.
        device: where the tensors go.
    """

    def __init__(
        self,
        store: Store,
        order: Order,
        *,
        dp_rank: int,
        dp_size: int,
        micro_batch_size: int,
        pad_token_id: int,
        device: torch.device,
    ) -> None:
        self.pad_token_id = pad_token_id
        self._store = store
        self._order = order
        self._place = (dp_rank, dp_size, micro_batch_size)
        self._device = device
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._ahead: tuple[int, Future[list[Batch]]] | None = None

    def window(self, position: int) -> list[Batch]:
        """Returns this rank's micro-batches of global batch `position`, and starts to read the next one."""
        if self._ahead and self._ahead[0] == position:
            batches = self._ahead[1].result()
        else:
            batches = self._read(position)
        self._ahead = (position + 1, self._thread.submit(self._read, position + 1))
        return [batch.to(self._device) for batch in batches]

    def _read(self, position: int) -> list[Batch]:
        parts = rank_slice(self._order.rows(position), *self._place)
        return [collate(self._store, part, self.pad_token_id) for part in parts]

    def close(self) -> None:
        """Ends the reading thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
