"""What happens when the loss jumps: stop, leave the batch out, or go back to the last checkpoint and leave it out.

A loss is a spike when it is further above the median of the last losses than `sigma` robust standard deviations
(1.4826 times the median absolute deviation; Hampel, 1974). It is known before the last backward pass, and is the same
sum over all ranks on every rank, so all decide alike and no update is made from it. The losses remembered are part of
the run's state: a run that continues decides as one that was never stopped.

Leaving a batch out puts its position on the skip list, which the ledger records. Going back leaves out a few batches
before the spike too, as PaLM did (arXiv 2204.02311, section 5.1): by themselves they replay as they were, and so would
the spike's own batch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from train.state import RunState

LEAST_LOSSES = 20
# A loss that hardly moves has a deviation near 0; below 1 % of the median nothing is a spike.
LEAST_DEVIATION = 0.01
SIGMA_OF_MAD = 1.4826


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a loss is a spike."""

    loss: float
    median: float
    bound: float

    def __str__(self) -> str:
        return f"loss {self.loss:.4g} is above {self.bound:.4g}, the bound by the last losses (median {self.median:.4g})"


@dataclass(frozen=True, slots=True)
class SpikePolicy:
    """`guard.spike*` of the configuration."""

    action: str
    sigma: float
    window: int
    limit: int
    rewind: int

    @property
    def is_on(self) -> bool:
        """False when losses are not looked at."""
        return self.action != "off"

    def judge(self, losses: Sequence[float], loss: float) -> Verdict | None:
        """Returns why `loss` is a spike after `losses`; None when it is not, or when too few are known."""
        if not self.is_on or len(losses) < min(LEAST_LOSSES, self.window):
            return None
        median = statistics.median(losses)
        deviation = SIGMA_OF_MAD * statistics.median(abs(value - median) for value in losses)
        bound = median + self.sigma * max(deviation, LEAST_DEVIATION * abs(median))
        return Verdict(loss, median, bound) if loss > bound or math.isnan(loss) else None

    def remember(self, state: RunState, loss: float) -> None:
        """Adds the loss of an update to those that the next one is compared with."""
        if self.is_on:
            state.losses = [*state.losses, loss][-self.window :]

    def positions_before(self, position: int, checkpoint_position: int) -> list[int]:
        """Returns the positions that a rollback leaves out: a few before the spike, none before the checkpoint, and its own."""
        return list(range(max(checkpoint_position, position - self.rewind), position + 1))
