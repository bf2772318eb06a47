"""Trackers write what metrics.jsonl holds, into the attempt's folder; nothing goes over the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.jsonlines import read_lines
from configs.schema import TrackerSection
from train.metrics import Metrics
from train.trackers import open_trackers


def log_three_steps(folder: Path, **which: bool) -> None:
    section = TrackerSection(**which)  # type: ignore[arg-type]
    metrics = Metrics(folder / "metrics.jsonl", section, open_trackers(section, folder, "a-run"))
    for step in (1, 2, 3):
        metrics.step(step, {"loss": 1.0 / step, "lr": 0.1, "tokens": 100 * step})
    metrics.evaluation(3, {"eval_loss": 0.25})
    metrics.close()


def test_jsonl_always(tmp_path: Path) -> None:
    log_three_steps(tmp_path)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert lines[-1]["eval_loss"] == 0.25


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_three_steps(tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([1, 1 / 2, 1 / 3])
    assert [event.step for event in events.Scalars("eval_loss")] == [3]


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path: Path) -> None:
    log_three_steps(tmp_path, wandb=True)
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert next(folder.glob("*.wandb")).stat().st_size > 0


@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_local_files(tmp_path: Path) -> None:
    import mlflow

    log_three_steps(tmp_path, mlflow=True)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow'}.db")
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    assert run.data.metrics["eval_loss"] == 0.25
    assert run.info.run_name == "a-run"
