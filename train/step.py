"""The arithmetic of one optimizer update.

Engines average gradients over data-parallel ranks, so each micro-batch back-propagates `sum * dp_size / units`, where
units counts the whole global batch. The result does not depend on ranks, micro-batch or packing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from data_pipelines.collate import Batch
from train.activity import enter
from train.distributed import sum_over_ranks
from train.engines import Engine
from train.objectives import Objective, Term
from train.pace import Pace


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one update did.

    Attributes:
        loss: sum of the terms' means over the global batch, before the update.
        terms: mean of each term.
        units: counts over the global batch.
        grad_norm: global norm before clipping.
        applied: False when loss or norm is not finite, or the loss was refused; then nothing has moved.
        stop: some rank asks to stop after this step.
        refused: the loss is finite, and `refuses` said no to it.
        own_times: each rank's own time of the step before, in seconds; empty in one process.
        overflowed: not applied because the scale of an fp16 loss was too high; it is lower now.
        non_finite: parameters of this rank whose gradients are not finite, the first few.
    """

    loss: float
    terms: dict[str, float]
    units: dict[str, int]
    grad_norm: float
    applied: bool
    stop: bool
    refused: bool = False
    own_times: list[float] = field(default_factory=list)
    overflowed: bool = False
    non_finite: tuple[str, ...] = ()


def train_step(
    engine: Engine,
    module: nn.Module,
    objective: Objective,
    window: list[Batch],
    *,
    stop: bool,
    pace: Pace | None = None,
    refuses: Callable[[float], bool] | None = None,
) -> StepOutcome:
    """Makes one update from this rank's micro-batches `window`.

    Args:
        engine: owns backward pass and update.
        module: the prepared scores.
        objective: turns scores into sums.
        window: equally many micro-batches on every rank.
        stop: this rank's wish to stop; any rank's wish reaches all, on the exchange of the units.
        pace: begun for this step; its times ride on the same exchange. None: nobody asks for times.
        refuses: says of the global loss whether no update is to be made from it; alike on all ranks.
    """
    pace = pace or Pace(0, 1)
    pace.pause()
    units, stop, own_times = _exchange_units(objective, window, stop, pace.slots())
    pace.resume()
    sums: dict[str, float] = {}
    for number, batch in enumerate(window):
        last = number == len(window) - 1
        with engine.micro_batch(last):
            enter("forward")
            terms = objective.loss(module(batch), batch)
            for term in terms:
                sums[term.name] = sums.get(term.name, 0.0) + float(term.sum.detach()) / units[term.unit]
            if last:
                pace.pause()
                means = dict(zip(sums, sum_over_ranks(list(sums.values())), strict=True))
                loss = sum(means.values())
                is_finite = math.isfinite(loss)
                refused = is_finite and refuses is not None and refuses(loss)
                if refused or not is_finite:
                    engine.discard()
                    return StepOutcome(loss, means, units, math.nan, False, stop, refused, own_times)
            enter("backward")
            engine.backward(_weighted(terms, units, engine.dims.dp_size), last)
    enter("optimizer")
    result = engine.step()
    return StepOutcome(
        loss,
        means,
        units,
        result.grad_norm,
        result.applied,
        stop,
        own_times=own_times,
        overflowed=result.overflowed,
        non_finite=result.non_finite,
    )


def _exchange_units(
    objective: Objective, window: list[Batch], stop: bool, slots: list[float]
) -> tuple[dict[str, int], bool, list[float]]:
    counts: dict[str, int] = {}
    for batch in window:
        for unit, count in objective.units(batch).items():
            counts[unit] = counts.get(unit, 0) + count
    totals = sum_over_ranks([*map(float, counts.values()), float(stop), *slots])
    # A global batch without any unit (all rows unlabelled) must not divide by zero.
    units = {unit: max(1, int(total)) for unit, total in zip(counts, totals, strict=False)}
    return units, totals[len(counts)] > 0, totals[len(counts) + 1 :]


def _weighted(terms: tuple[Term, ...], units: dict[str, int], dp_size: int) -> Tensor:
    loss = terms[0].sum * (dp_size / units[terms[0].unit])
    for term in terms[1:]:
        loss = loss + term.sum * (dp_size / units[term.unit])
    return loss
