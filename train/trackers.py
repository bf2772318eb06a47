"""Optional trackers. Everything stays in the attempt's folder; nothing goes over the network."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.schema import TrackerSection
from train.metrics import Tracker

_MODULES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


def check_trackers(section: TrackerSection) -> None:
    """Raises ConfigError, naming the extra to install, for a tracker that is asked for but not there."""
    missing = [
        f"tracker.{name}=true: {module} is not installed; pip install 'aisc-finetune[{name}]'"
        for name, module in _MODULES.items()
        if getattr(section, name) and importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ConfigError(missing)


def open_trackers(section: TrackerSection, folder: Path, run: str) -> list[Tracker]:
    """Returns the trackers that `section` asks for, writing below `folder`."""
    check_trackers(section)
    trackers: list[Tracker] = []
    if section.tensorboard:
        trackers.append(TensorBoard(folder / "tensorboard"))
    if section.wandb:
        trackers.append(WandbOffline(folder, run))
    if section.mlflow:
        trackers.append(MlflowFiles(folder / "mlflow", run))
    return trackers


class TensorBoard:
    """Event files for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbOffline:
    """A W&B run on disk; `wandb sync` sends it when its owner wants."""

    def __init__(self, folder: Path, run: str) -> None:
        os.environ["WANDB_MODE"] = "offline"
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(mode="offline", dir=str(folder), name=run, project="aisc-finetune")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowFiles:
    """An MLflow run in local files."""

    def __init__(self, folder: Path, run: str) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        self._mlflow.set_tracking_uri(f"sqlite:///{folder}.db")
        self._mlflow.start_run(run_name=run)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()
