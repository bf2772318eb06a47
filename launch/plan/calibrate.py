"""What a run of the same shape measured: its rate instead of the assumed one, its peak memory beside the formula's."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.compose import thaw
from configs.engine_choice import Candidate, setup_of
from configs.errors import UserError
from configs.facts import facts_of
from configs.memory import Model, Setup, estimate
from configs.runfolder import RunFolder, read_events, read_metrics
from configs.schema import RunConfig
from launch.plan.cards import Card
from launch.plan.choice import with_candidate
from launch.plan.figures import MEASURED, Figure
from launch.plan.flops import Flops
from launch.plan.speed import Rate

# The first updates warm up caches, allocators and clocks.
WARMUP_STEPS = 3
LEAST_STEPS = 5
# What has to be equal so that a rate carries over; ranks, engine and micro-batch may differ and are said.
SAME = ("data.sequence_length", "training.precision", "training.gradient_checkpointing", "adapter.name", "objective.name")


@dataclass(frozen=True, slots=True)
class Measured:
    """A run's figures.

    Attributes:
        run: its name; ranks, engine: how it ran.
        tokens_per_s: of all ranks, the median over steps; low, high: a tenth of the steps lies below, above.
        peak_bytes: of the rehearsal on one rank; None on CPUs.
        predicted_peak: what the formula says for that run.
    """

    run: str
    ranks: int
    engine: str
    tokens_per_s: float
    low: float
    high: float
    peak_bytes: int | None = None
    predicted_peak: int | None = None

    @property
    def band(self) -> float:
        """Half the distance between low and high, as a share of the median."""
        return (self.high - self.low) / 2 / self.tokens_per_s

    @property
    def memory_error(self) -> float | None:
        """Measured over predicted peak, minus 1."""
        return None if not self.peak_bytes or not self.predicted_peak else self.peak_bytes / self.predicted_peak - 1


def measured_of(folder: Path, config: RunConfig, model: Model) -> Measured:
    """Reads a run and checks that its rate says something about `config`.

    Raises:
        UserError: too few steps, or another shape; names what differs.
    """
    run = RunFolder(folder)
    attempts = [attempt for attempt in run.attempts() if attempt.config_path.exists()]
    if not attempts:
        raise UserError(f"--calibrate {run.name}: no attempt has come as far as its config.yaml")
    theirs = thaw(attempts[-1].config_path.read_text(encoding="utf-8"))
    if differing := differences(config, theirs, model):
        raise UserError(f"--calibrate {run.name}: another shape, so its speed says nothing here: {'; '.join(differing)}")
    rates = sorted(float(line["tokens_per_s"]) for line in read_metrics(folder) if line["step"] > WARMUP_STEPS and "tokens_per_s" in line)
    if len(rates) < LEAST_STEPS:
        raise UserError(f"--calibrate {run.name}: {len(rates)} timed steps after the first {WARMUP_STEPS}; expected {LEAST_STEPS} or more")
    started = [event for event in read_events(folder) if event.get("event") == "started"]
    ranks = int(started[-1].get("world", 1)) if started else 1
    tenth = len(rates) // 10
    peak, predicted = _memory(theirs, model, started[-1] if started else {}, ranks)
    return Measured(
        run.name, ranks, theirs.engine.name, statistics.median(rates), rates[tenth], rates[-1 - tenth], peak, predicted
    )


def differences(config: RunConfig, theirs: RunConfig, model: Model) -> list[str]:
    """Returns what makes the other run's rate another one, `key: theirs there, ours here`."""
    found = []
    for key in SAME:
        section, name = key.split(".")
        mine, other = (getattr(getattr(each, section), name) for each in (config, theirs))
        if mine != other:
            found.append(f"{key}: {other} there, {mine} here")
    if config.adapter.name == "lora" and config.adapter.rank != theirs.adapter.rank:
        found.append(f"adapter.rank: {theirs.adapter.rank} there, {config.adapter.rank} here")
    shapes = facts_of(theirs).model
    for key in ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"):
        mine, other = model.values.get(key), shapes.get(key)
        if other is not None and mine != other:
            found.append(f"model's {key}: {other} there, {mine} here")
    if not shapes:
        found.append(f"its model {theirs.model.path} cannot be read any more")
    return found


def _memory(theirs: RunConfig, model: Model, started: dict[str, Any], ranks: int) -> tuple[int | None, int | None]:
    """Returns (measured, predicted) peak of the run's own engine and micro-batch."""
    peak, micro = started.get("peak_bytes"), started.get("micro_batch_size")
    if not peak or not micro:
        return None, None
    candidate = Candidate.of(theirs.engine)
    setup: Setup = with_candidate(setup_of(theirs, ranks), candidate, int(micro))
    return int(peak), estimate(model, setup).total.accelerator


def measured_rate(measured: Measured, flops: Flops, recompute: str, card: Card | None) -> Rate:
    """Returns FLOP/s of one GPU as the run reached them; as a share of the card's peak where that is known."""
    per_gpu = measured.tokens_per_s * flops.done(recompute) / measured.ranks
    source = f"run {measured.run}: {measured.ranks} ranks, {measured.engine}, same shape"
    text = f"{measured.tokens_per_s:,.0f} tokens/s x {flops.done(recompute):.4g} FLOP / {measured.ranks} ranks"
    value, unit = (per_gpu, "FLOP/s") if card is None else (per_gpu / card.flops, "of peak")
    return Rate(per_gpu, Figure(value, unit, MEASURED, text, source, value * measured.band))
