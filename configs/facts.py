"""What is known before anything heavy is imported: the model from its config.json, the machine, the versions."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts for checks; null means unknown, and a rule that needs it is checked at the start of the run.

    Attributes:
        model: values of config.json, or of `model.arch`.
        num_gpus: visible GPUs of this machine.
    """

    num_gpus: int
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def max_positions(self) -> int | None:
        value = self.model.get("max_position_embeddings")
        return int(value) if isinstance(value, int) else None


def facts_of(config: RunConfig) -> Facts:
    """Reads the facts of `config` on this machine, without torch."""
    return Facts(num_gpus=count_gpus(), model=_model_values(config))


def count_gpus() -> int:
    """Returns how many NVIDIA GPUs this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _model_values(config: RunConfig) -> dict[str, Any]:
    if not config.model.path:
        return dict(config.model.arch)
    path = Path(config.model.path).expanduser() / "config.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values
