"""Held-out loss and perplexity, in total and by source: the same scores and the same sums as training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from data_pipelines.collate import Batch, collate
from data_pipelines.index import Store
from train.activity import enter
from train.distributed import Dims, sum_over_ranks


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean negative log-likelihood per target token (nats), over all documents and by source."""

    loss: float
    loss_by_source: dict[str, float]
    targets: int

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite when it overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Runs the held-out store through the model. Every rank calls it and gets the same result."""

    store: Store
    dims: Dims
    device: torch.device
    micro_batch_size: int
    pad_token_id: int

    def batches(self) -> Iterator[Batch]:
        """Yields this rank's micro-batches; every rank yields equally many, the missing rows being empty."""
        stride = self.dims.dp_size * self.micro_batch_size
        rows = np.full(-(-self.store.num_rows // stride) * stride, -1, dtype=np.int64)
        rows[: self.store.num_rows] = np.arange(self.store.num_rows)
        for part in rows.reshape(-1, self.dims.dp_size, self.micro_batch_size)[:, self.dims.dp_rank]:
            yield collate(self.store, part, self.pad_token_id).to(self.device)

    def run(self, module: nn.Module, stop_wanted: Callable[[], bool] | None = None) -> Evaluation | None:
        """Returns the loss of `module` (the prepared scores) on the held-out rows; leaves its mode as it was.

        Args:
            module: the prepared scores.
            stop_wanted: asked on every rank after each batch; when one says yes all return None, having measured nothing.
        """
        num_sources = len(self.store.sources)
        sums = np.zeros((2, num_sources), dtype=np.float64)
        was_training = module.training
        module.eval()
        try:
            with torch.no_grad():
                for batch in self.batches():
                    enter("evaluation")
                    scores = module(batch).double().cpu().numpy()
                    source = batch.document_source[batch.target_document.cpu().numpy()]
                    sums[0] += np.bincount(source, weights=-scores, minlength=num_sources)
                    sums[1] += np.bincount(source, minlength=num_sources)
                    if stop_wanted is not None and sum_over_ranks([float(stop_wanted())])[0] > 0:
                        return None
        finally:
            module.train(was_training)
        total = np.array(sum_over_ranks(sums.ravel().tolist())).reshape(2, num_sources)
        by_source = {
            name: float(total[0, i] / total[1, i]) for i, name in enumerate(self.store.sources) if total[1, i]
        }
        return Evaluation(float(total[0].sum() / total[1].sum()), by_source, int(total[1].sum()))
