"""The charts of the board page and of the paper kit: an SVG each, and what it shows in words."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from train.dossier import BASE, THIS, Dossier
from train.evaluation_file import is_share
from train.report.figures import as_svg, draw_losses, new_figure

SHOWN_POINTS, SHOWN_TASKS, LONGEST_LABEL = 1000, 24, 36
# Of Okabe and Ito's palette: told apart by people with any kind of colour vision, and dark enough on white.
BLUE, ORANGE = "#0072B2", "#D55E00"


def share_bars(shares: Mapping[str, float]) -> tuple[str, str]:
    """Returns horizontal bars of each source's share of the tokens (0 to 1), and the same in words."""
    labels = labels_of(list(shares))
    figure = new_figure(7.2, 0.7 + 0.32 * len(shares))
    axes = figure.add_subplot()
    axes.barh(range(len(shares)), [100 * share for share in shares.values()], color=BLUE)
    axes.set_yticks(range(len(shares)), list(labels.values()))
    axes.invert_yaxis()
    axes.set_xlabel("share of the training tokens, %")
    words = ", ".join(f"{_named(name, labels)} {share:.1%}" for name, share in shares.items())
    return as_svg(figure), f"Shares of the training tokens: {words}."


def loss_chart(dossier: Dossier) -> tuple[str, str] | None:
    """Returns the loss over the steps, and its beginning and end in words; None before the first step."""
    steps = [line for line in dossier.metrics if "loss" in line]
    if not steps:
        return None
    every = -(-len(steps) // SHOWN_POINTS)
    figure = new_figure(7.2, 2.8)
    axes = figure.add_subplot()
    draw_losses(axes, [*steps[::every], *(line for line in dossier.metrics if "eval_loss" in line)], color=BLUE)
    axes.set_xlabel("optimizer step")
    axes.legend(frameon=False, fontsize=8)
    words = f"Training loss by step: {steps[0]['loss']:.3f} at step {steps[0]['step']:,}, {steps[-1]['loss']:.3f} at step {steps[-1]['step']:,}"
    held = [line for line in dossier.metrics if "eval_loss" in line]
    if held:
        words += f"; held-out loss {held[0]['eval_loss']:.3f} at step {held[0]['step']:,}, {held[-1]['eval_loss']:.3f} at step {held[-1]['step']:,}"
    return as_svg(figure), words


def interval_chart(dossier: Dossier) -> tuple[str, str] | None:
    """Returns the values of the tasks with their intervals, this model beside the starting one; None without a share.

    Losses and margins have other units and stay out, also where they happen to lie between 0 and 1.
    """
    points: dict[str, dict[str, tuple[float, float, float]]] = {}
    for subject in (BASE, THIS):
        for _, task in dossier.of(subject):
            for measure in task.measures:
                if not task.is_check and measure.interval and is_share(measure.name):
                    points.setdefault(f"{task.name}, {measure.name}", {})[subject] = (measure.value, *measure.interval)
    rows = {name: values for name, values in points.items() if THIS in values}
    if not rows:
        return None
    shown = dict(list(rows.items())[:SHOWN_TASKS])
    figure = new_figure(7.2, 1.0 + 0.42 * len(shown))
    axes = figure.add_subplot()
    for subject, color, shift, marker in ((BASE, ORANGE, 0.15, "s"), (THIS, BLUE, -0.15, "o")):
        at = [(row + shift, values[subject]) for row, values in enumerate(shown.values()) if subject in values]
        if at:
            x = [value for _, (value, _, _) in at]
            spans = [[value - low for _, (value, low, _) in at], [high - value for _, (value, _, high) in at]]
            axes.errorbar(
                x, [y for y, _ in at], xerr=spans, fmt=marker, color=color, capsize=3, markersize=4, label=subject
            )
    labels = labels_of(list(shown))
    axes.set_yticks(range(len(shown)), list(labels.values()), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="x", alpha=0.25)
    axes.set_xlabel("share of items, with its 95 % interval")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    spelled = [
        f"{_named(name, labels)}: "
        + ", ".join(
            f"{subject} {value:.3f} ({low:.3f} to {high:.3f})" for subject, (value, low, high) in values.items()
        )
        for name, values in shown.items()
    ]
    return as_svg(figure), "Values of the tasks with their intervals. " + "; ".join(spelled)


def labels_of(names: Sequence[str]) -> dict[str, str]:
    """Returns what stands beside each row of a chart: its name, or letters for all where one is too long or not drawable.

    matplotlib's own font has no Chinese, and a text between two dollars would be mathematics.
    """
    if all(len(name) <= LONGEST_LABEL and name.isascii() and name.isprintable() and "$" not in name for name in names):
        return {name: name for name in names}
    return {
        name: string.ascii_uppercase[row % 26] + (str(row // 26) if row > 25 else "") for row, name in enumerate(names)
    }


def _named(name: str, labels: Mapping[str, str]) -> str:
    return name if labels[name] == name else f"{labels[name]}: {name}"
