"""What the objective measures on held-out data, in total and by source: the same scores and the same sums as training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data_pipelines.collate import Batch, collate
from data_pipelines.index import Store
from train.activity import enter
from train.distributed import Dims, sum_over_ranks
from train.inference import inference
from train.objectives import Objective, Sft, look_at_window


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over all held-out documents, and by source.

    Attributes:
        loss: of the objective; for a likelihood, nats per target token.
        loss_by_source: the same for each source that has something.
        targets: how many things were averaged: target tokens for a likelihood, pairs for a preference.
        figures: means of the other things that the objective measures, such as `accuracy`; empty for a likelihood.
    """

    loss: float
    loss_by_source: dict[str, float]
    targets: int
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite when it overflows; of a likelihood only."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Runs the held-out store through the model. Every rank calls it and gets the same result."""

    store: Store
    dims: Dims
    device: torch.device
    micro_batch_size: int
    pad_token_id: int
    objective: Objective = Sft()

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
        counts, sums = np.zeros(num_sources), dict[str, NDArray[np.float64]]()
        look_at_window(self.objective, module, self.batches())
        with inference(module):
            for batch in self.batches():
                enter("evaluation")
                measured = self.objective.measure(module(batch), batch)
                counts += np.bincount(measured.source, minlength=num_sources)
                for name, values in measured.values.items():
                    sums.setdefault(name, np.zeros(num_sources))
                    sums[name] += np.bincount(measured.source, weights=values, minlength=num_sources)
                if stop_wanted is not None and sum_over_ranks([float(stop_wanted())])[0] > 0:
                    return None
        total = np.array(sum_over_ranks(np.stack([counts, *sums.values()]).ravel().tolist())).reshape(-1, num_sources)
        means = dict(zip(sums, (total[1:].sum(axis=1) / total[0].sum()).tolist(), strict=True))
        losses = total[1 + list(sums).index("loss")]
        by_source = {name: float(losses[i] / total[0, i]) for i, name in enumerate(self.store.sources) if total[0, i]}
        return Evaluation(means.pop("loss"), by_source, int(total[0].sum()), means)
