"""The arithmetic of one optimizer update.

Engines average gradients over data-parallel ranks, so each micro-batch back-propagates `sum * dp_size / units`, where
units counts the whole global batch. The result does not depend on ranks, micro-batch or packing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from data_pipelines.collate import Batch
from train.distributed import sum_over_ranks
from train.engines import Engine
from train.objectives import Objective, Term


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one update did.

    Attributes:
        loss: sum of the terms' means over the global batch, before the update.
        terms: mean of each term.
        units: counts over the global batch.
        grad_norm: global norm before clipping.
        applied: False when loss or norm is not finite; then nothing has moved.
        stop: some rank asks to stop after this step.
    """

    loss: float
    terms: dict[str, float]
    units: dict[str, int]
    grad_norm: float
    applied: bool
    stop: bool


def train_step(
    engine: Engine, module: nn.Module, objective: Objective, window: list[Batch], *, stop: bool
) -> StepOutcome:
    """Makes one update from this rank's micro-batches `window`.

    Args:
        engine: owns backward pass and update.
        module: the prepared scores.
        objective: turns scores into sums.
        window: equally many micro-batches on every rank.
        stop: this rank's wish to stop; any rank's wish reaches all, on the exchange of the units.
    """
    units, stop = _exchange_units(objective, window, stop)
    sums: dict[str, float] = {}
    for number, batch in enumerate(window):
        last = number == len(window) - 1
        with engine.micro_batch(last):
            terms = objective.loss(module(batch), batch)
            for term in terms:
                sums[term.name] = sums.get(term.name, 0.0) + float(term.sum.detach()) / units[term.unit]
            if last:
                means = dict(zip(sums, sum_over_ranks(list(sums.values())), strict=True))
                if not math.isfinite(sum(means.values())):
                    engine.discard()
                    return StepOutcome(sum(means.values()), means, units, math.nan, False, stop)
            engine.backward(_weighted(terms, units, engine.dims.dp_size), last)
    result = engine.step()
    return StepOutcome(sum(means.values()), means, units, result.grad_norm, result.applied, stop)


def _exchange_units(objective: Objective, window: list[Batch], stop: bool) -> tuple[dict[str, int], bool]:
    counts: dict[str, int] = {}
    for batch in window:
        for unit, count in objective.units(batch).items():
            counts[unit] = counts.get(unit, 0) + count
    totals = sum_over_ranks([*map(float, counts.values()), float(stop)])
    # A global batch without any unit (all rows unlabelled) must not divide by zero.
    return {unit: max(1, int(total)) for unit, total in zip(counts, totals, strict=False)}, totals[-1] > 0


def _weighted(terms: tuple[Term, ...], units: dict[str, int], dp_size: int) -> Tensor:
    loss = terms[0].sum * (dp_size / units[terms[0].unit])
    for term in terms[1:]:
        loss = loss + term.sum * (dp_size / units[term.unit])
    return loss
