"""What `aisc eval` shows: figures with their intervals, comparisons, the verdict on forgetting. 80 columns."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from train.evaluation import Asked
    from train.evaluation_file import ModelScore, TaskScore
    from train.intervals import Difference
    from train.packs import Task

WIDTH = 80


def show(screen: Console, score: ModelScore, asked: Asked) -> None:
    """Prints the figures of one model."""
    _say(screen, f"{score.model}   {score.kind}, {len(score.weights)} weight files   on {asked.device}")
    lines = [(task, metric) for task in score.tasks if not task.is_check for metric in task.figures]
    if lines:
        _say(screen, f"\n  {'task':<20}{'metric':<20}{'value':>9}  {'95 % interval':<20}{'n':>7}")
    for task, metric in lines:
        figure = task.figures[metric]
        interval = _interval(f"{_number(figure.low)}..{_number(figure.high)}", figure.low)
        name = task.name if metric == next(iter(task.figures)) else ""
        _say(screen, f"  {name:<20}{metric:<20}{_number(figure.value):>9}  {interval:<20}{figure.n:>7,}")
    for task in score.tasks:
        if task.is_check:
            count = max(figure.n for figure in task.figures.values())
            _say(screen, f"\n  {task.name}: {count} questions answered: the harness works with this model.")
            _say(screen, "  They are published few-shot examples, too few and too well known to be a score.")
        if "rules" in task.more:
            _rules(screen, task)


def _rules(screen: Console, task: TaskScore) -> None:
    rules = task.more["rules"]
    _say(screen, f"\n  {task.name}: a reply refuses when its first {rules['in_first_characters']} characters match one of")
    for phrase in rules["phrases"]:
        for line in textwrap.wrap(phrase, WIDTH - 6, break_on_hyphens=False):
            _say(screen, f"    {line}")


def show_missing(screen: Console, tasks: list[Task]) -> None:
    """Prints which tasks of a pack had no data."""
    if tasks:
        _say(screen, "\n  not run, as their data was not given (formats: docs/eval.md):")
        for task in tasks:
            _say(screen, f"    {task.name + '=FILE':<26}{task.about}")


def show_comparison(screen: Console, other: str, found: dict[str, dict[str, Difference]]) -> None:
    """Prints the paired differences of this model minus the other."""
    _say(screen, f"\n  minus {other}, on the same items")
    _say(screen, f"  {'task':<20}{'metric':<14}{'difference':>11}   {'95 % interval':<18}{'p':>7}{'n':>5}")
    tests = []
    for task, metrics in found.items():
        for metric, one in metrics.items():
            interval = _interval(f"{one.low:+.4f}..{one.high:+.4f}", one.low)
            p = "<0.001" if one.p < 0.001 else f"{one.p:.3f}"
            _say(screen, f"  {task:<20}{metric:<14}{one.value:>+11.4f}   {interval:<18}{p:>7}{one.n:>5,}")
            tests.append(one.test)
    if tests:
        _say(screen, f"  p: {'; '.join(dict.fromkeys(tests))}. Intervals: paired bootstrap.")


def show_forgetting(screen: Console, found: dict[str, Any]) -> None:
    """Prints the verdict of the gate."""
    word = "TRIPPED" if found["tripped"] else "held"
    sure = f"{found['confidence']:.0%}"
    _say(screen, f"\n  forgetting  {word}: loss on general text {found['loss_base']:.4f} -> {found['loss']:.4f}")
    _say(screen, f"              {found['difference']:+.4f} nats/token; with {sure} confidence at least {found['low']:+.4f}")
    _say(screen, f"              bound {found['bound']:+g}; {found['documents']:,} documents, {found['tokens']:,} tokens")
    if found["tripped"]:
        _say(screen, "              A release of this model is refused. Fewer steps, a lower learning rate, an")
        _say(screen, "              adapter, or general text mixed into the training data forget less.")


def _interval(text: str, low: float) -> str:
    return "none of one item" if math.isnan(low) else text


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def _say(screen: Console, text: str) -> None:
    screen.print(text, soft_wrap=True, markup=False)
