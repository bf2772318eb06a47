"""Space that a run takes: checkpoints, export, store; and what is free where it goes."""

from __future__ import annotations

import os
from pathlib import Path

from configs.memory import Model
from configs.model_shapes import numel
from configs.runfolder import runs_dir
from configs.schema import RunConfig
from launch.plan.figures import FORMULA, GB, MEASURED, Figure, unknown
from launch.plan.work import Work


def disk_of(config: RunConfig, model: Model, work: Work | None) -> dict[str, Figure]:
    """Returns `checkpoint`, `checkpoints`, `export`, `store` and `free`, in GB (10^9 bytes)."""
    trained, everything = numel(model.parameters, trained=True), numel(model.parameters)
    tensors = 3 if config.optimizer.name == "adamw" else 1
    one = 4 * trained * tensors / GB
    # Old ones go only when the new one is published, and the best one stays: as train/space.py counts.
    evaluates = config.data.validation.strip().lower() != "none"
    at_most = config.checkpoint.keep + 1 + evaluates
    if work is not None:
        at_most = min(at_most, work.saves + (work.evaluations if evaluates else 0))
    merged = config.adapter.name == "none" or config.export.merge
    width = 2 if config.training.precision != "fp32" else 4
    export = (everything * width if merged else trained * 4) / GB
    return {
        "checkpoint": Figure(one, "GB", FORMULA, f"{trained:,} trained x {tensors} fp32 numbers (weight, moments) x 4 bytes"),
        "checkpoints": Figure(
            at_most * one, "GB", FORMULA, f"{at_most} at a time (checkpoint.keep={config.checkpoint.keep}, the new one, the best one) x {one:.4g} GB"
        ),
        "export": Figure(export, "GB", FORMULA, f"{everything:,} x {width} bytes" if merged else f"{trained:,} of the adapter x 4 bytes"),
        "store": _store(config, model, work),
        "free": _free(config),
    }


def _store(config: RunConfig, model: Model, work: Work | None) -> Figure:
    if work is None or work.epoch_tokens is None:
        return unknown("GB", "the size of the data is not known")
    ids = 2 if model.values["vocab_size"] <= 1 << 16 else 4
    size = work.epoch_tokens * (ids + 1) / GB
    return Figure(size, "GB", work.tokens.basis, f"{work.epoch_tokens:,.0f} tokens x ({ids} bytes of id + 1 of mask)", work.tokens.source)


def _free(config: RunConfig) -> Figure:
    folder = runs_dir(config.run.dir).absolute()
    place = next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
    try:
        usage = os.statvfs(place)
    except OSError as error:
        return unknown("GB", f"{place}: {error.strerror}")
    return Figure(usage.f_bavail * usage.f_frsize / GB, "GB", MEASURED, f"free on the file system of {place}; a quota is not seen")


def shortage(figures: dict[str, Figure]) -> str | None:
    """Returns the sentence when checkpoints and export do not fit what is free; None when they do or nobody knows."""
    need = sum(figures[name].value or 0.0 for name in ("checkpoints", "export"))
    free = figures["free"].value
    if free is None or need <= free:
        return None
    return f"disk: checkpoints and export need {need:,.1f} GB, {free:,.1f} GB are free; checkpoint.keep=1 or run.dir=FOLDER elsewhere"
