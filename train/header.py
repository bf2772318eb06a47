"""What a run shows before its first step: model, data, packing, step, learning rate, engine, check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from configs.compose import NO_GPU
from configs.schema import EngineSection, RunConfig
from data_pipelines.build import Prepared
from train.adapters import trained_parameters
from train.progress import print_header, spell_count
from train.schedule import share_steps
from train.state import Plan

if TYPE_CHECKING:
    from train.learner import Learner

GIB = 2**30


def rows(
    config: RunConfig, reasons: dict[str, str], prepared: Prepared, learner: Learner, plan: Plan
) -> list[tuple[str, str]]:
    """Returns the header's lines as (key, text)."""
    account = prepared.account.summary()
    return [
        ("model", _model(config, learner)),
        ("data", account[0]),
        *(("", line) for line in account[1:2]),
        ("packed", f"{account[2]}, documents isolated ({learner.attention})"),
        *(("", line) for line in account[3:]),
        ("step", _step(config, prepared, plan)),
        ("lr", _learning_rate(config, reasons, plan)),
        ("engine", _engine(config, learner)),
        *(("", f"{config.engine.name}: {why}") for why in (reasons.get("engine.name"),) if why and why != NO_GPU),
        *([("check", _check(learner))] if learner.reference else []),
    ]


def show(console: Console | None, name: str, note: str, lines: list[tuple[str, str]]) -> None:
    """Prints the header."""
    print_header(console, name, note, lines)


def _model(config: RunConfig, learner: Learner) -> str:
    trained, total = trained_parameters(learner.model)
    name = config.model.path or f"{config.model.arch['model_type']} with random weights"
    what = f"{name}   {spell_count(total)}, {config.training.precision}"
    if config.adapter.name == "none":
        return what
    return f"{what}   adapter  lora r{config.adapter.rank}, {spell_count(trained)} trained ({100 * trained / total:.2g} %)"


def _step(config: RunConfig, prepared: Prepared, plan: Plan) -> str:
    size, store = config.training.global_batch_size, prepared.train
    documents = size * store.num_documents / max(1, store.num_rows)
    tokens = size * store.sequence_length
    return (
        f"{size} rows = {spell_count(tokens)} tokens = about {documents:.0f} documents    "
        f"{plan.total_steps} steps = {config.training.duration}"
    )


def _learning_rate(config: RunConfig, reasons: dict[str, str], plan: Plan) -> str:
    reason = f" ({reasons['optimizer.lr']})" if "optimizer.lr" in reasons else ""
    warmup = share_steps(config.lr_scheduler.warmup, plan.total_steps)
    return f"{float(config.optimizer.lr):.1e}{reason}, {config.lr_scheduler.name}, {warmup} warm-up steps"


def _engine(config: RunConfig, learner: Learner) -> str:
    rehearsal = learner.rehearsal
    where = f"{learner.engine.dims.world} x {learner.device_name}, {spell_engine(config.engine)}, {config.training.precision}"
    memory = f"{rehearsal.peak_bytes / GIB:.1f} of {rehearsal.total_bytes / GIB:.1f} GiB"
    return f"{where}, micro-batch {rehearsal.micro_batch_size} ({rehearsal.reason})  worst batch rehearsed: {memory}"


def spell_engine(section: EngineSection) -> str:
    """Returns the engine in a few words: `zero3, optimizer on the host`."""
    words = [section.name]
    if section.offload_parameters:
        words.append("weights and optimizer on the host")
    elif section.offload_optimizer:
        words.append("optimizer on the host")
    if section.shard_size:
        words.append(f"a copy per {section.shard_size} ranks")
    return ", ".join(words)


def _check(learner: Learner) -> str:
    check = learner.reference
    assert check is not None
    return f"loss on batch 0, fast kernels vs reference: {check.fast:.4f} / {check.reference:.4f}   ok"
