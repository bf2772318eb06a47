"""Runs as a person asks for them: found by name, listed, compared. Reads run folders only; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from configs.errors import UserError
from configs.runfolder import RunFolder, Status, read_events, read_json, read_metrics, state_of
from configs.values import nearest


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of the list of runs.

    Attributes:
        step, total_steps: where it is; total_steps is 0 before the first start.
        eval_loss: of the exported weights, or the newest one of a run that goes on; before: of the starting model.
        started: of the first attempt, seconds since 1970; hours: of all attempts of the chain.
    """

    name: str
    status: Status
    step: int
    total_steps: int
    eval_loss: float | None
    eval_loss_before: float | None
    attempts: int
    started: float


def all_runs(parent: Path) -> list[RunFolder]:
    """Returns the runs in `parent`, newest first; those that wait for their first start too, a sweep's points not."""
    if not parent.is_dir():
        return []
    return _newest_first(path for path in parent.iterdir() if _is_run(path))


def sweep_runs(parent: Path) -> list[RunFolder]:
    """Returns the runs of all sweeps in `parent`, newest first."""
    return _newest_first(path for sweep in parent.glob("*/sweep.json") for path in sweep.parent.iterdir() if _is_run(path))


def chain_runs(parent: Path) -> list[RunFolder]:
    """Returns the runs of all chains in `parent`, newest first."""
    return _newest_first(path for chain in parent.glob("*/chain.json") for path in chain.parent.iterdir() if _is_run(path))


def find_run(text: str, parent: Path) -> RunFolder:
    """Returns the run that `text` means: a folder, a name, the six characters at its end, the newest of a first part, or
    that of a job of Slurm.

    Raises:
        UserError: there is none.
    """
    path = Path(text).expanduser()
    if _is_run(path):
        return RunFolder(path)
    runs = all_runs(parent)
    points = [*sweep_runs(parent), *chain_runs(parent)]
    exact = [run for run in (*runs, *points) if run.name == text]
    by_id = [run for run in runs if text in run.name.split("-")[1:]]
    by_stem = [run for run in runs if run.name.startswith(f"{text}-")]
    by_job = [run for run in (*runs, *points) if text.isascii() and text.isdigit() and (run.path / "jobs" / f"{text}.json").is_file()]
    if found := [*exact, *by_id, *by_stem, *by_job]:
        return found[0]
    if text.isascii() and text.isdigit():
        raise UserError(f"{text}: no run in {parent} has a job of this number; what Slurm itself remembers: sacct -j {text}")
    close = nearest(text, [run.name for run in runs])
    hint = f"did you mean {close}?" if close else f"there are: {', '.join(run.name for run in runs[:10]) or 'none'}"
    raise UserError(f"{text}: no such run in {parent}; {hint}")


def _is_run(path: Path) -> bool:
    if (path / "attempts").is_dir():
        return True
    return (path / "jobs").is_dir() and not (path / "sweep.json").exists()


def _newest_first(paths: Iterable[Path]) -> list[RunFolder]:
    def touched(path: Path) -> float:
        return max(folder.stat().st_mtime for name in ("attempts", "jobs") if (folder := path / name).is_dir())

    return [RunFolder(path) for path in sorted(paths, key=touched, reverse=True)]


def summarize(run: RunFolder) -> RunSummary:
    """Returns what the list shows of `run`."""
    metrics = read_metrics(run.path)
    result = read_json(run.result_path) or {}
    evaluations = [line for line in metrics if "eval_loss" in line]
    before = next((line["eval_loss"] for line in evaluations if line["step"] == 0), None)
    last = evaluations[-1]["eval_loss"] if evaluations else None
    starts = [start for attempt in run.attempts() if (start := attempt.read_start())]
    return RunSummary(
        name=run.name,
        status=state_of(run.path),
        step=max((int(line["step"]) for line in metrics), default=0),
        total_steps=int(starts[-1].get("total_steps", 0)) if starts else 0,
        eval_loss=result.get("eval_loss", last),
        eval_loss_before=result.get("eval_loss_before", before),
        attempts=len(run.attempts()),
        started=float(starts[0]["time"]) if starts else 0.0,
    )


def frozen_config(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Returns the configuration that the newest attempt ran with, as plain sections.

    Raises:
        UserError: no attempt came so far.
    """
    for attempt in reversed(run.attempts()):
        if attempt.config_path.exists():
            values = OmegaConf.to_container(OmegaConf.create(attempt.config_path.read_text(encoding="utf-8")))
            assert isinstance(values, dict)
            return values  # type: ignore[return-value]
    raise UserError(f"{run.name}: no attempt has come as far as its config.yaml")


def differing_keys(configs: list[dict[str, dict[str, Any]]]) -> list[tuple[str, list[Any]]]:
    """Returns (key, value in each configuration) for each key whose values are not all equal."""
    keys = list(dict.fromkeys(f"{section}.{key}" for config in configs for section, part in config.items() for key in part))
    rows = []
    for key in keys:
        section, name = key.split(".", 1)
        values = [config.get(section, {}).get(name) for config in configs]
        if any(value != values[0] for value in values):
            rows.append((key, values))
    return rows


def read_replies(run: RunFolder) -> list[dict[str, Any]]:
    """Returns the answers to held-out prompts of all attempts, oldest first; one per (step, prompt), the newest."""
    from configs.jsonlines import read_lines

    lines = [line for attempt in run.attempts() for line in read_lines(attempt.path / "replies.jsonl")]
    return list({(line["step"], line["document"]): line for line in lines}.values())


def timeline(run: RunFolder) -> list[dict[str, Any]]:
    """Returns the events of all attempts and how each ended, in order of time."""
    events = read_events(run.path)
    for attempt in run.attempts():
        end = read_json(attempt.exit_path)
        if end is not None:
            events.append({"attempt": attempt.number, "event": f"ended: {end['state']}", "time": end["time"], "cause": end["cause"]})
    return sorted(events, key=lambda event: float(event["time"]))


def model_folder(text: str, parent: Path) -> Path:
    """Returns the model folder that `text` means: itself, or the exported one of a run.

    Raises:
        UserError: no such run, or one that has not exported yet.
    """
    path = Path(text).expanduser()
    if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        return path
    run = find_run(text, parent)
    folder = run.path / "model"
    if not folder.is_dir():
        raise UserError(f"{run.name}: no model folder yet ({state_of(run.path)}); it is written when the run is done")
    return folder
