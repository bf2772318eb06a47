"""The pass of a reference model before step 1 (train/reference.py): its time, and what it holds beside the model in training.

A pass is forward only, over every document of the store, once; its columns stay in the store, so that another run of the
same start finds them. No run on a GPU was compared with these figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.memory import model_of
from configs.model_shapes import numel
from configs.schema import RunConfig
from configs.schema.objective import REFERENCED, START
from launch.plan.choice import Fit
from launch.plan.figures import FORMULA, GB, Figure, unknown
from launch.plan.flops import Flops
from launch.plan.work import Work


def pass_hours(fit: Fit, flops: Flops, work: Work | None, flops_per_s: float | None, missing: str) -> Figure:
    """Returns the hours of the pass; 0 where the objective compares with no reference.

    Args:
        fit: the column. flops: of its model. work: of the run; None: not known.
        flops_per_s: what one GPU does; None: not known, `missing` says what is missing.
        missing: a sentence.
    """
    if work is not None and work.reference_tokens == 0:
        return Figure(0.0, "h", FORMULA, "the objective compares with no reference model")
    if flops_per_s is None:
        return unknown("h", missing)
    if work is None or work.reference_tokens is None:
        return unknown("h", "the size of the data is not known, so neither is the reference's pass over it: not counted")
    hours = work.reference_tokens * flops.forward / (flops_per_s * fit.ranks) / 3600
    left_out = "" if work.held_out_tokens is not None else " (held-out data not known: not counted)"
    return Figure(
        hours,
        "h",
        FORMULA,
        f"training and held-out tokens x forward = {work.reference_tokens:,.0f} x {flops.forward:.4g} FLOP / "
        f"({flops_per_s:.4g} FLOP/s x {fit.ranks} ranks), once before step 1; nothing where the store has it already{left_out}",
        "the rate of training is taken for a forward pass",
    )


def memory_of(config: RunConfig, fit: Fit) -> Figure:
    """Returns the GB that a rank holds of a second model, in a phase of its own before step 1."""
    objective = config.objective
    if objective.name not in REFERENCED:
        return Figure(0.0, "GB", FORMULA, f"objective={objective.name} compares with no reference model")
    if objective.reference == START:
        return Figure(
            0.0,
            "GB",
            FORMULA,
            "objective.reference=start: the run's own weights before step 1 are the reference (with a new adapter its "
            "base), their log-probabilities are kept: no second model, and no more than a step holds",
        )
    values = _config_of(objective.reference)
    shapes = model_of(values)
    if shapes is None:
        return unknown("GB", f"objective.reference={objective.reference}: its shapes are not known here; it is loaded whole on each rank")
    numbers, width = numel(shapes.parameters), 4 if _type_of(values) == "float32" else 2
    return Figure(
        numbers * width / GB,
        "GB",
        FORMULA,
        f"{numbers:,} numbers of {objective.reference} x {width} bytes, whole on every rank, in a phase of its own before "
        "step 1; then it is let go",
    )


def phase_bytes(fit: Fit, reference: Figure) -> int:
    """Returns what a rank holds in that phase: weights, moments and the other model; 0 without one."""
    if not reference.value:
        return 0
    memory = fit.memory
    own = memory.parameters.accelerator + memory.optimizer.accelerator + memory.logits.accelerator
    return own + round(reference.value * GB)


def _config_of(folder: str) -> dict[str, Any]:
    try:
        return dict(json.loads((Path(folder).expanduser() / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # the configuration's own rules say so
        return {}


def _type_of(values: dict[str, Any]) -> str:
    return str(values.get("dtype") or values.get("torch_dtype") or "float32")
