"""The figures of a paper, an SVG file each: loss, gradient norm, learning rate, preferences, tasks with their intervals."""

from __future__ import annotations

from collections.abc import Iterator

from train.board.charts import interval_chart, loss_chart
from train.dossier import Dossier
from train.report.curves import SHOWN_POINTS, draw_preferences
from train.report.figures import as_svg, new_figure


def draw_all(dossier: Dossier) -> Iterator[tuple[str, str]]:
    """Yields (name of the file, its SVG) of every figure that the run has values for."""
    if chart := loss_chart(dossier):
        yield "loss.svg", chart[0]
    for key, words in (("grad_norm", "gradient norm"), ("lr", "learning rate")):
        points = [(line["step"], line[key]) for line in dossier.metrics if line.get(key) is not None]
        if points:
            yield f"{words.replace(' ', '_')}.svg", _curve(points[:: -(-len(points) // SHOWN_POINTS)], words)
    if preferences := draw_preferences(dossier.metrics):
        yield "preferences.svg", preferences
    if chart := interval_chart(dossier):
        yield "evaluation.svg", chart[0]


def _curve(points: list[tuple[int, float]], words: str) -> str:
    figure = new_figure(5.0, 2.6)
    axes = figure.add_subplot()
    axes.plot([step for step, _ in points], [value for _, value in points], color="#0072B2", linewidth=1)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(words)
    axes.grid(alpha=0.25)
    return as_svg(figure)
