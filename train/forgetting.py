"""The forgetting gate: does the trained model still speak what its base spoke? Loss on general text, paired by document.

The gate trips when, with the confidence asked for, the loss is worse than the base's by more than the bound: when the
lower end of the one-sided interval of the difference (paired bootstrap over documents; Koehn 2004, Efron and Tibshirani
1993) is above it. A difference that chance could explain, or one within the bound, does not trip it.
"""

from __future__ import annotations

from typing import Any

from configs.errors import DataError
from train.held_out import LOSS, Items
from train.intervals import bootstrap, ratio

# Fewer documents give an interval that says nothing.
LEAST_DOCUMENTS = 8


def judge(model: Items, base: Items, *, bound: float, confidence: float) -> dict[str, Any]:
    """Returns the verdict and its figures, in nats per token as the base counts tokens.

    Args:
        model, base: measured on the same documents.
        bound: how much worse is still allowed.
        confidence: of the one-sided interval, more than 0.5.

    Raises:
        DataError: too few documents to be sure of anything.
    """
    assert model.ids == base.ids and base.tokens is not None
    check_enough(base)
    difference, tokens = model.values[LOSS] - base.values[LOSS], base.tokens
    # A two-sided interval of level 2c - 1 leaves 1 - c on each side.
    low, high, _ = bootstrap((difference, tokens), ratio, max(2 * confidence - 1, 0.01))
    total = float(tokens.sum())
    return {
        "tripped": bool(low > bound),
        "difference": float(difference.sum()) / total,
        "low": low,
        "high": high,
        "bound": bound,
        "confidence": confidence,
        "loss": float(model.values[LOSS].sum()) / total,
        "loss_base": float(base.values[LOSS].sum()) / total,
        "documents": len(base.ids),
        "tokens": int(total),
    }


def check_enough(items: Items) -> None:
    """Raises DataError when the texts hold too few documents; known after one model, before anything slower."""
    if len(items.ids) < LEAST_DOCUMENTS:
        raise DataError(
            f"evaluation.forgetting: {len(items.ids)} documents; expected {LEAST_DOCUMENTS} or more, as the gate draws documents "
            "(a text file is one document, a line of a JSONL file is one)"
        )
