"""`aisc eval`: everything that is asked of one model, and of a second one on the same items. The composition root."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.atomic import sha256_file
from configs.errors import ConfigError
from configs.runfolder import RunFolder
from configs.schema import RunConfig
from train import eval_target, forgetting, held_out
from train.eval_target import Target
from train.evaluate_folder import (
    Subject,
    check_same_tokens,
    file_hashes,
    held_out_objective,
    load_subject,
    plain_model,
    score_store,
    score_texts,
)
from train.evaluate_folder import held_out as held_out_store
from train.evaluation_file import ModelScore, TaskScore
from train.harness import Outcome, require_harness, run_tasks, task_rows
from train.held_out import Items
from train.intervals import Difference, Figure, compare_means, mean_figure
from train.packs import Task
from train.packs.rows import Row

HELD_OUT, TEXTS = "held_out", "general_text"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured.

    Attributes:
        on: the run whose held-out data counts; None for none.
        config: of that run, or of the target's.
        tasks: with their rows; files: SHA-256 of the data of each task, by its name.
        texts: files of general text for the gate; empty for none. base: what it compares with.
    """

    on: RunFolder | None
    config: RunConfig
    device: torch.device
    rows: int
    tasks: list[tuple[Task, list[Row]]] = field(default_factory=list)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    texts: list[Path] = field(default_factory=list)
    base: Path | None = None
    with_samples: bool = False


@dataclass(slots=True)
class Measured:
    """One model's scores, and the items that a comparison needs."""

    score: ModelScore
    items: dict[str, Items] = field(default_factory=dict)


def read_tasks(tasks: list[Task], files: dict[str, str], limit: int | None) -> tuple[list[tuple[Task, list[Row]]], dict[str, dict[str, str]]]:
    """Returns (tasks with their rows, SHA-256 of their files); before any model is loaded.

    Raises:
        DataError: a file of another shape; UserError: the harness is not installed.
    """
    if tasks:
        require_harness()
    rows = [(task, task_rows(task, files.get(task.name), limit)) for task in tasks]
    return rows, {name: {path: sha256_file(Path(path).expanduser())} for name, path in files.items()}


def evaluate(target: Target, asked: Asked) -> Measured:
    """Returns what `target` came to.

    Raises:
        ConfigError: there is no base to compare with, said before anything is measured.
    """
    if asked.base is not None and not (asked.base / "config.json").is_file():
        raise ConfigError(f"evaluation.base={asked.base}: no model folder there; the forgetting gate compares with it")
    with eval_target.weights_folder(target) as folder:
        weights = eval_target.weight_hashes(folder)
        score = ModelScore(eval_target.score_name(target, weights, asked.on), target.label, target.kind, weights, [])
        done = Measured(score)
        subject = load_subject(folder, asked.device)
        if asked.on is not None:
            _score_held_out(subject, asked, asked.on, done)
        if asked.texts:
            _score_texts(subject, asked, done)
        if asked.tasks:
            done.score.tasks += _score_tasks(subject, asked)
        del subject
        gc.collect()
    if asked.texts and asked.base is not None:
        done.score.forgetting = _judge(asked, asked.base, done)
    return done


def compare(first: Measured, second: Measured) -> dict[str, dict[str, Difference]]:
    """Returns how the first model differs from the second, metric by metric of each task that both have."""
    found: dict[str, dict[str, Difference]] = {}
    others = {task.name: task for task in second.score.tasks}
    for task in first.score.tasks:
        if task.is_check or task.name not in others:
            continue
        if task.name in first.items and task.name in second.items:
            found[task.name] = held_out.compare(first.items[task.name], second.items[task.name])
            continue
        other = others[task.name].items
        found[task.name] = {}
        for metric, items in task.items.items():
            # A reply without any Chinese character has no script: such items are compared where both models have the figure.
            values, matching = dict(items), dict(other.get(metric, []))
            ids = [name for name in values if name in matching]
            if ids:
                pair = [np.array([scores[name] for name in ids]) for scores in (values, matching)]
                found[task.name][metric] = compare_means(*pair)
    return found


def _score_held_out(subject: Subject, asked: Asked, run: RunFolder, done: Measured) -> None:
    store = held_out_store(run)
    check_same_tokens(subject.folder, subject.tokenizer, run)
    items = score_store(subject, store, asked.rows, held_out_objective(asked.config, run, store))
    task = held_out.as_task(items, HELD_OUT, {"store": store.fingerprint})
    task.more = {"objective": asked.config.objective.name, "run": run.name, "precision": subject.precision}
    done.items[HELD_OUT] = items
    done.score.tasks.append(task)


def _score_texts(subject: Subject, asked: Asked, done: Measured) -> None:
    items = score_texts(subject, asked.texts, asked.rows)
    forgetting.check_enough(items)
    done.items[TEXTS] = items
    done.score.tasks.append(held_out.as_task(items, TEXTS, file_hashes(asked.texts)))


def _judge(asked: Asked, base: Path, done: Measured) -> dict[str, Any]:
    """Returns the verdict of the forgetting gate; the base is loaded for it."""
    items = score_texts(load_subject(base, asked.device), asked.texts, asked.rows)
    section = asked.config.evaluation
    verdict = forgetting.judge(
        done.items[TEXTS], items, bound=section.forgetting_bound, confidence=section.forgetting_confidence
    )
    return {**verdict, "base": str(base), "base_weights": eval_target.weight_hashes(base), "data": file_hashes(asked.texts)}


def _score_tasks(subject: Subject, asked: Asked) -> list[TaskScore]:
    outcomes = run_tasks(
        asked.tasks,
        plain_model(subject),
        subject.tokenizer,
        batch_size=asked.rows,
        system_prompt=subject.settings.system_prompt,
        template_args=subject.settings.template_args,
    )
    return [_task_score(outcome, asked) for outcome in outcomes]


def _task_score(outcome: Outcome, asked: Asked) -> TaskScore:
    figures = {}
    for metric, items in outcome.items.items():
        ours = mean_figure(np.array([value for _, value in items]))
        value, stderr = outcome.figures[metric]
        figures[metric] = Figure(value, ours.stderr if stderr is None else stderr, ours.low, ours.high, ours.n)
    more: dict[str, Any] = {"harness": "lm-evaluation-harness", "about": outcome.task.about, "limit": asked.config.evaluation.limit}
    if outcome.task.has_rules:
        from train.packs.safety.refusals import OPENING, RULES

        more["rules"] = {"in_first_characters": OPENING, "phrases": list(RULES)}
    return TaskScore(
        outcome.task.name,
        outcome.task.pack,
        figures,
        outcome.items,
        is_check=outcome.task.is_check,
        data=asked.files.get(outcome.task.name, {}),
        samples=outcome.samples if asked.with_samples else [],
        more=more,
    )
