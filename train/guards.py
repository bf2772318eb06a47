"""Checks that stop a run before it wastes hours: fast kernels against the plain model, and who made a loss non-finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from configs.errors import RunFailed
from data_pipelines.collate import Batch, collate
from data_pipelines.index import Store
from train.activity import CURRENT, enter
from train.distributed import gather_json
from train.inference import inference

MOST_NAMED = 3

# Relative bounds on the mean loss of one row. fp32 kernels differ by summation order only (measured 1e-7);
# bf16 keeps 8 bits of mantissa, fp16 11, and errors of single tokens average out over a row.
REFERENCE_BOUND = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 5e-3}


@dataclass(frozen=True, slots=True)
class ReferenceCheck:
    """Mean loss of one packed row by the training path and by the plain path."""

    fast: float
    reference: float


def check_reference(module: nn.Module, row: Batch, precision: str) -> ReferenceCheck:
    """Compares the training path with each document run alone through the plain model.

    Args:
        module: the prepared scores.
        row: one packed row, `[1, T]`, with at least one labelled position.
        precision: `fp32`, `bf16` or `fp16`; sets the bound.

    Raises:
        RunFailed: the two losses differ by more than the bound, or neither is a number.
    """
    with inference(module):
        fast = -module(row).double().mean().item()
        plain = module(row, plainly=True).double()
        reference = -plain.mean().item()
    if not math.isfinite(reference):
        raise RunFailed(
            f"reference check: the loss of batch 0 is {reference:.4g} by the plain model too, not finite: {_blame_weights(module)}"
        )
    bound = REFERENCE_BOUND[precision]
    # Rewards have both signs, and their mean may be near 0; of log-probabilities this is the mean itself.
    if not abs(fast - reference) <= bound * max(plain.abs().mean().item(), 1e-8):
        raise RunFailed(
            f"reference check: loss of batch 0 is {fast:.6f} by the training kernels and {reference:.6f} by the plain "
            f"model; expected a relative difference of at most {bound:g}. Try model.attention=sdpa or eager; "
            "guard.reference_check=false goes on without the check."
        )
    return ReferenceCheck(fast, reference)


def _blame_weights(module: nn.Module) -> str:
    """Returns what is wrong with weights that give no number for any row; every rank calls it with its part of them."""
    own = non_finite(((name, getattr(p, "ds_tensor", p)) for name, p in module.named_parameters()), MOST_NAMED)
    named = list(dict.fromkeys(name for names in gather_json(own) for name in names))
    if not named:
        return "all weights are finite, what they compute overflows (try training.precision=fp32, or a lower optimizer.lr)"
    more = " and others" if len(named) > MOST_NAMED else ""
    names = ", ".join(name.removeprefix("module.").removeprefix("model.") for name in named[:MOST_NAMED])
    return f"these weights hold numbers that are not: {names}{more} (start from others, or try a lower optimizer.lr)"


def find_non_finite_rows(module: nn.Module, store: Store, window: list[Batch], pad_token_id: int) -> list[int]:
    """Returns the rows of all ranks' windows whose loss alone is not finite, in order; every rank calls it.

    Raises:
        RunFailed: it is that of all of them, so that no row is to blame.
    """
    culprits, num_rows = [], 0
    with torch.no_grad():
        for batch in window:
            # Empty rows too: a sharded model must be called equally often on every rank.
            for row in batch.row_ids:
                enter("forward")  # row by row a window may take longer than a rank may stand still
                num_rows += row >= 0
                single = collate(store, np.array([row], dtype=np.int64), pad_token_id).to(batch.input_ids.device)
                if not torch.isfinite(module(single).sum()):
                    culprits.append(int(row))
    found = gather_json([culprits, int(num_rows)])
    rows, total = sorted(row for own, _ in found for row in own), sum(number for _, number in found)
    if len(rows) == total > 1:
        raise RunFailed(
            f"step {CURRENT.step}: the loss of each of the {total} rows alone is not finite: {_blame_weights(module)}. "
            "Nothing was updated; the last good checkpoint is untouched"
        )
    return rows


def non_finite_gradients(named: Iterable[tuple[str, nn.Parameter]], most: int = MOST_NAMED) -> tuple[str, ...]:
    """Returns the first parameters whose gradient, or this rank's part of it, is not finite."""
    return non_finite(((name, parameter.grad) for name, parameter in named), most)


def non_finite(named: Iterable[tuple[str, Tensor | None]], most: int) -> tuple[str, ...]:
    """Returns the names of the first tensors of which this rank's part is not finite."""
    found = []
    for name, tensor in named:
        local = getattr(tensor, "_local_tensor", tensor)  # of a DTensor: this rank's part
        if local is not None and not bool(torch.isfinite(local).all()):
            found.append(name)
            if len(found) == most:
                break
    return tuple(found)


def blame_non_finite(store: Store, rows: list[int], gradients: Iterable[str], loss: float) -> str:
    """Returns what made an update impossible; every rank calls it with the gradients that it found itself.

    Args:
        rows: of `find_non_finite_rows`.
        gradients: of `non_finite_gradients` on this rank.
        loss: of the global batch.
    """
    named = list(dict.fromkeys(name for own in gather_json(list(gradients)) for name in own))
    if rows:
        return f"rows whose loss alone is not finite: {describe_rows(store, rows)}"
    if named:
        more = " and others" if len(named) > MOST_NAMED else ""
        first = ", ".join(named[:MOST_NAMED])
        return f"every loss is finite, these gradients are not: {first}{more} (try a lower optimizer.lr)"
    at = "the loss" if not math.isfinite(loss) else "the norm"
    return (
        f"each row alone has a finite loss, {at} of all together has not: the weights or the gradients overflowed "
        "(try a lower optimizer.lr)"
    )


def describe_rows(store: Store, rows: list[int], most: int = 5) -> str:
    """Returns `row 12 (notes: lines 4, 9), ...` for a message; names places, never text."""
    described = []
    for row in rows[:most]:
        places: dict[str, list[int]] = {}
        for document in store.row_documents(row):
            source, line = store.origin(int(document))
            places.setdefault(source, []).append(line)
        lines = "; ".join(f"{source}: lines {', '.join(map(str, sorted(found)))}" for source, found in places.items())
        described.append(f"row {row} ({lines})")
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return ", ".join(described) + more
