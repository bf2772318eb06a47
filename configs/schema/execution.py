"""`engine`, `checkpoint`, `guard`, `export`, `run`, `tracker`: where it runs and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from configs.durations import parse_seconds
from configs.schema.fields import setting

# Ranks tell of themselves once a second: below this one that works cannot be told from one that stands still.
LEAST_HANG_S = 5


@dataclass(kw_only=True, slots=True)
class EngineSection:
    name: str = setting(
        "auto",
        identity=False,
        choices=("auto", "ddp", "zero1", "zero2", "zero3", "fsdp2"),
        help="Who holds which part: ddp: every rank all; zero1 to zero3 (DeepSpeed) share optimizer, gradients, weights; "
        "fsdp2 (torch) all of them. auto: the cheapest that fits.",
    )
    processes: int | str = setting(
        "auto", identity=False, help="Processes on this machine; auto: one per visible GPU, one on a CPU."
    )
    backend: str = setting(
        "auto", identity=False, choices=("auto", "gloo", "nccl"), help="Collectives; auto: nccl on GPUs, gloo on CPUs."
    )
    offload_optimizer: bool = setting(
        False, identity=False, help="Keep optimizer state and update in host memory (zero1, zero2, zero3): slower, less GPU memory."
    )
    offload_parameters: bool = setting(
        False, identity=False, help="Keep weights in host memory too (zero3), with fsdp2 weights, gradients and optimizer."
    )
    shard_size: int | None = setting(
        None, identity=False, help="Ranks that share one copy of the model under fsdp2 (HSDP), e.g. those of a node; null: all."
    )
    deepspeed: dict[str, Any] | str | None = setting(
        None, identity=False, help="Your own DeepSpeed settings, a JSON file or a mapping, merged last; null: none."
    )


@dataclass(kw_only=True, slots=True)
class CheckpointSection:
    every: str = setting("10%", identity=False, help="How often to save: `10%` of the run, `100 steps`, or `end`.")
    keep: int = setting(2, identity=False, help="How many of the newest checkpoints stay; the best one stays too.")

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        return [] if self.keep >= 1 else [f"checkpoint.keep={self.keep}: expected 1 or more"]


@dataclass(kw_only=True, slots=True)
class GuardSection:
    reference_check: bool = setting(
        True, identity=False, help="Compare the loss of batch 0 with the plain model's before step 1; a difference stops the run."
    )
    hang_timeout: str = setting(
        "5 min",
        identity=False,
        help="End the run when no rank makes progress for so long (`30 s`, `5 min`, `1 h`; five times that in a first "
        "step, a save, an export); 0: never.",
    )
    straggler_ratio: float = setting(
        1.5, identity=False, help="Name a rank that takes this many times as long as the others, more than 1; 0: never."
    )
    straggler_window: int = setting(
        50, identity=False, help="Steps averaged for that; a rank is named after three such windows in a row."
    )
    spike: str = setting(
        "off",
        identity=False,
        choices=("off", "stop", "skip", "rollback"),
        help="When the loss jumps: stop the run, leave the batch out, or go back to the last checkpoint and leave out the "
        "batches that led there.",
    )
    spike_sigma: float = setting(
        10.0, identity=False, help="A spike is this many robust standard deviations above the median of the last losses."
    )
    spike_window: int = setting(100, identity=False, help="How many of the last losses, 10 or more.")
    spike_limit: int = setting(3, identity=False, help="Spikes that are left out in one run; the next one stops it.")
    spike_rewind: int = setting(
        4, identity=False, help="Batches before the spike that a rollback leaves out too, none before the checkpoint."
    )
    weights_check: int = setting(
        1000,
        identity=False,
        help="Steps between two comparisons of the weights' bits over the ranks that hold copies, and at each save; 0: never.",
    )

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        found = []
        try:
            if 0 < parse_seconds(self.hang_timeout) < LEAST_HANG_S:
                found.append(f"guard.hang_timeout={self.hang_timeout}: expected {LEAST_HANG_S} s or more, or 0 for never")
        except ValueError as error:
            found.append(f"guard.hang_timeout={self.hang_timeout}: {error}")
        if self.straggler_ratio and self.straggler_ratio <= 1:
            found.append(f"guard.straggler_ratio={self.straggler_ratio:g}: expected more than 1, or 0 for never")
        if self.spike_sigma <= 0:
            found.append(f"guard.spike_sigma={self.spike_sigma:g}: expected more than 0")
        least = {"straggler_window": 1, "spike_window": 10, "spike_limit": 0, "spike_rewind": 0, "weights_check": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                found.append(f"guard.{name}={getattr(self, name)}: expected {smallest} or more")
        return found


@dataclass(kw_only=True, slots=True)
class ExportSection:
    merge: bool = setting(False, identity=False, help="Write merged weights instead of the adapter.")


@dataclass(kw_only=True, slots=True)
class RunSection:
    name: str | None = setting(
        None, identity=False, help="First part of the run's name; null: the YAML's stem or the experiment's name."
    )
    project: str | None = setting(None, identity=False, help="Whose budget and lists this run belongs to; null: none.")
    dir: str | None = setting(None, identity=False, help="Folder of all runs; null: $AISC_RUNS or ./runs.")


@dataclass(kw_only=True, slots=True)
class TrackerSection:
    every: int = setting(1, identity=False, help="Steps between two lines of metrics.jsonl, 1 or more.")
    tensorboard: bool = setting(False, identity=False, help="Write TensorBoard events (extra: tensorboard).")
    wandb: bool = setting(False, identity=False, help="Write a W&B run, offline (extra: wandb).")
    mlflow: bool = setting(False, identity=False, help="Write an MLflow run into local files (extra: mlflow).")

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        return [] if self.every >= 1 else [f"tracker.every={self.every}: expected 1 or more"]
