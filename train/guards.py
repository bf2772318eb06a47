"""Checks that stop a run before it wastes hours: fast kernels against the plain model, and who made a loss non-finite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from configs.errors import RunFailed
from data_pipelines.collate import Batch, collate
from data_pipelines.index import Store

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
        RunFailed: the two losses differ by more than the bound.
    """
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            fast = -module(row).double().mean().item()
            reference = -module(row, plainly=True).double().mean().item()
    finally:
        module.train(was_training)
    bound = REFERENCE_BOUND[precision]
    if not abs(fast - reference) <= bound * max(abs(reference), 1e-8):
        raise RunFailed(
            f"reference check: loss of batch 0 is {fast:.6f} by the training kernels and {reference:.6f} by the plain "
            f"model; expected a relative difference of at most {bound:g}. Try model.attention=sdpa or eager; "
            "guard.reference_check=false goes on without the check."
        )
    return ReferenceCheck(fast, reference)


def find_non_finite_rows(module: nn.Module, store: Store, window: list[Batch], pad_token_id: int) -> list[int]:
    """Returns the rows of this rank's window whose loss alone is not finite, in order."""
    culprits = []
    with torch.no_grad():
        for batch in window:
            for row in batch.row_ids[batch.row_ids >= 0]:
                single = collate(store, np.array([row], dtype=np.int64), pad_token_id).to(batch.input_ids.device)
                if not torch.isfinite(module(single).sum()):
                    culprits.append(int(row))
    return culprits


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
