"""`eval/NAME.json` of a run folder: what `aisc eval` measured of one model. Board, release and the gate read these files.

    {"model", "kind": run | checkpoint | folder, "weights": {file: SHA-256},
     "tasks": {TASK: {"pack", "check", "metrics": {NAME: {"value", "stderr", "low", "high", "n", "higher_is_better"}},
                      "data": {file: SHA-256}, "items": FILE, "samples": FILE | null, ...}},
     "comparisons": {OTHER: {TASK: {METRIC: {"value", "low", "high", "p", "n", "test"}}}},
     "forgetting": {"tripped", ...}, "versions", "command", "written"}

Items (`items/NAME/TASK.jsonl`) hold ids and scores; texts are in `samples/` only, when they were asked for. All are 0600.
A later evaluation of the same weights adds to the file; of other weights under the same name, it replaces it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs import atomic
from configs.runfolder import read_json
from train import lineage
from train.intervals import Difference, Figure

FOLDER = "eval"
# Metrics of which less is better; all others: more.
LOWER = ("loss", "perplexity", "simplified", "code_switch", "empty", "over_refused")
# Metrics that are no shares of items.
UNITS = ("loss", "perplexity", "margin")


@dataclass(slots=True)
class TaskScore:
    """One task of one model.

    Attributes:
        figures: by metric. items: by metric [(id, value)]; `weights` [n] where a metric is a sum over tokens, not a mean.
        is_check: shows that the harness works; its figures are no scores.
        data: SHA-256 of the files it was measured on.
        samples: texts, for a private file; empty when they were not asked for.
        more: what else belongs to it, such as the rules that judged.
    """

    name: str
    pack: str
    figures: dict[str, Figure]
    items: dict[str, list[tuple[str, float]]]
    is_check: bool = False
    data: dict[str, str] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ModelScore:
    """Everything measured of one model by one command."""

    name: str
    model: str
    kind: str
    weights: dict[str, str]
    tasks: list[TaskScore]
    comparisons: dict[str, dict[str, dict[str, Difference]]] = field(default_factory=dict)
    forgetting: dict[str, Any] | None = None


def is_share(metric: str) -> bool:
    """True for rates and accuracies, which lie between 0 and 1; losses and margins have units of their own."""
    return metric.split("/", maxsplit=1)[0] not in UNITS


def lower_is_better(metric: str) -> bool:
    """True when less of it is better."""
    return metric.split("/", maxsplit=1)[0] in LOWER


def write_score(folder: Path, score: ModelScore, command: str) -> Path:
    """Writes `score` into `folder`/NAME.json, items and samples beside it; returns the file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{score.name}.json"
    before = read_json(path) or {}
    if before.get("weights") != score.weights:
        before = {}
    tasks = {**before.get("tasks", {}), **{task.name: write_task(folder, score.name, task) for task in score.tasks}}
    differences = {
        other: {task: {metric: _plain(found) for metric, found in metrics.items()} for task, metrics in by_task.items()}
        for other, by_task in score.comparisons.items()
    }
    value = {
        "model": score.model,
        "kind": score.kind,
        "weights": score.weights,
        "tasks": tasks,
        "comparisons": {**before.get("comparisons", {}), **differences},
        "versions": lineage.versions() | _harness_version(),
        "command": command,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if (forgetting := score.forgetting or before.get("forgetting")) is not None:
        value["forgetting"] = forgetting
    atomic.write_json(path, value)
    return path


def write_task(folder: Path, name: str, task: TaskScore) -> dict[str, Any]:
    """Writes the items of `task`, and its samples when it has some; returns its entry."""
    by_id: dict[str, dict[str, Any]] = {}
    for metric, items in task.items.items():
        for item, value in items:
            by_id.setdefault(item, {"id": item})[metric] = value
    entry: dict[str, Any] = {
        "pack": task.pack,
        "check": task.is_check,
        "metrics": {
            metric: {**_plain(figure), "higher_is_better": not lower_is_better(metric)} for metric, figure in task.figures.items()
        },
        "data": task.data,
        "items": _write_lines(folder, "items", name, task.name, list(by_id.values())),
        "samples": _write_lines(folder, "samples", name, task.name, task.samples),
    }
    return entry | task.more


def _write_lines(folder: Path, kind: str, name: str, task: str, lines: list[dict[str, Any]]) -> str | None:
    path = folder / kind / name / f"{task}.jsonl"
    if not lines:
        path.unlink(missing_ok=True)  # those of an earlier evaluation, which nothing names any more
        return None
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic.write_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return str(path.relative_to(folder.parent))


def read_scores(run: Path) -> dict[str, dict[str, Any]]:
    """Returns the evaluations of run folder `run` by name, oldest first."""
    found = {path.stem: value for path in sorted((run / FOLDER).glob("*.json")) if (value := read_json(path)) is not None}
    return dict(sorted(found.items(), key=lambda item: str(item[1].get("written"))))


def _plain(figure: Figure | Difference) -> Mapping[str, Any]:
    values = dataclasses.asdict(figure)
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}


def _harness_version() -> dict[str, str]:
    import importlib.metadata

    try:
        return {"lm-eval": importlib.metadata.version("lm-eval")}
    except importlib.metadata.PackageNotFoundError:
        return {}
