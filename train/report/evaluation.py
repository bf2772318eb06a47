"""What `aisc eval` measured, from the files in `eval/`: figures with intervals, differences, the verdict on forgetting, samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from configs.jsonlines import read_lines
from configs.runfolder import RunFolder
from train.evaluation_file import is_share, read_scores
from train.report.figures import as_svg, drawable, new_figure
from train.report.section import Section

# Of each task of the run's own model, and characters of each text.
SHOWN_SAMPLES = 2
SHOWN_CHARACTERS = 400
SHOWN_BARS = 40

Scores = Mapping[str, Mapping[str, Any]]


def section(run: RunFolder) -> Section | None:
    """Returns one row per model, task and metric; None before the first evaluation."""
    scores = read_scores(run.path)
    rows = [
        (name, task, metric, _number(figure["value"]), _interval(figure), f"{figure['n']:,}")
        for name, task, metric, figure in _figures(scores)
    ]
    if not rows:
        return None
    notes = [*_checks(scores), *_differences(scores), *_forgetting(scores)]
    header = ("model", "task", "metric", "value", "95 % interval", "items")
    words = "Rates and accuracies with their 95 % intervals, by model and task"
    return Section("Evaluation", tuple(rows), header, svg=draw(scores), words=words, note=" ".join(notes))


def samples(run: RunFolder) -> Section | None:
    """Returns a few prompts and replies of the run's own model; None when nobody asked for them (`aisc eval --samples`)."""
    parts = []
    for task, values in read_scores(run.path).get("model", {}).get("tasks", {}).items():
        lines = read_lines(run.path / values["samples"]) if values.get("samples") else []
        for line in lines[:SHOWN_SAMPLES]:
            prompt, reply = (_text(line[key]) for key in ("prompt", "replies"))
            parts.append(f"{task} {line['id']}\n  prompt  {prompt}\n  reply   {reply}")
    return Section("Evaluation: samples", code="\n\n".join(parts)) if parts else None


def draw(scores: Scores) -> str:
    """Returns the rates with their intervals as an `<svg>` element, empty when there are none; losses have other units."""
    bars = [
        (f"{name}: {task} {metric}", figure)
        for name, task, metric, figure in _figures(scores)
        if is_share(metric) and figure["low"] is not None
    ][:SHOWN_BARS]
    if not bars:
        return ""
    figure = new_figure(7.6, 0.9 + 0.28 * len(bars))
    axes = figure.add_subplot()
    for number, (_, bar) in enumerate(bars):
        reach = [[max(0.0, bar["value"] - bar["low"])], [max(0.0, bar["high"] - bar["value"])]]
        axes.errorbar([bar["value"]], [number], xerr=reach, fmt="o", color="C0", markersize=4, capsize=3)
    axes.set_yticks(range(len(bars)), [drawable(name) for name, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share of items, with its 95 % interval")
    axes.grid(alpha=0.25)
    return as_svg(figure)


def _figures(scores: Scores) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Yields (model, task, metric, figure); checks of the harness are no scores and are left out."""
    for name, score in scores.items():
        for task, values in score["tasks"].items():
            if not values.get("check"):
                yield from ((name, task, metric, figure) for metric, figure in values["metrics"].items())


def _checks(scores: Scores) -> list[str]:
    found = sorted({task for score in scores.values() for task, values in score["tasks"].items() if values.get("check")})
    return [f"{task} ran: a check that the harness works, not a score." for task in found]


def _differences(scores: Scores) -> list[str]:
    found = []
    for name, score in scores.items():
        for other, tasks in score.get("comparisons", {}).items():
            for task, metrics in tasks.items():
                found += [
                    f"{task} {metric}: {name} minus {other} is {one['value']:+.4f} ({_reach(one)}, "
                    f"p {one['p']:.3g}, {one['test']}, {one['n']:,} items)."
                    for metric, one in metrics.items()
                ]
    return found


def _forgetting(scores: Scores) -> list[str]:
    found = []
    for name, score in scores.items():
        if (verdict := score.get("forgetting")) is not None:
            word = "TRIPPED: a release is refused" if verdict["tripped"] else "held"
            found.append(
                f"Forgetting gate of {name}: {word}. Loss on general text {verdict['loss_base']:.4f} before, {verdict['loss']:.4f} now; "
                f"with {verdict['confidence']:.0%} confidence at least {verdict['low']:+.4f} nats per token, bound {verdict['bound']:+g}."
            )
    return found


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def _reach(difference: Mapping[str, Any]) -> str:
    low, high = difference["low"], difference["high"]
    return "no interval" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


def _interval(figure: Mapping[str, Any]) -> str:
    return "-" if figure["low"] is None else f"{_number(figure['low'])} to {_number(figure['high'])}"


def _text(value: Any) -> str:
    """Returns the text of a prompt or reply as the harness logs it: the first string in nested lists."""
    while isinstance(value, list) and value:
        value = value[0]
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} ..."
