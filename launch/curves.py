"""Loss curves as one SVG: training loss as a line, held-out loss as points, for one run or several."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def loss_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns the SVG of the runs' metric lines, by run name."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for number, (name, lines) in enumerate(runs.items()):
        color = f"C{number % 10}"
        train = [(line["step"], line["loss"]) for line in lines if "loss" in line]
        held_out = [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
        if train:
            axes.plot(*zip(*train, strict=True), color=color, alpha=0.55, linewidth=1, label=f"{name}: training")
        if held_out:
            axes.plot(*zip(*held_out, strict=True), "o-", color=color, markersize=4, label=f"{name}: held out")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per learned token)")
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)
    return figure_svg(figure)


def figure_svg(figure: Any) -> str:
    """Returns a matplotlib figure as an `<svg>` element without fonts, scripts or links."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
