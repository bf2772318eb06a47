"""Figures as `<svg>` elements: losses of one run or several. matplotlib is imported when one is drawn, not before."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = Sequence[Mapping[str, Any]]


def new_figure(width_in: float, height_in: float) -> Figure:
    """Returns an empty figure that needs no display."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def as_svg(figure: Figure) -> str:
    """Returns the figure as an `<svg>` element, the same bytes for the same data; its ids are its own on a page of several."""
    import matplotlib

    out = io.StringIO()
    # Without a salt of its own matplotlib draws random ids for what it clips.
    with matplotlib.rc_context({"svg.hashsalt": "aisc"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    own = f"f{zlib.crc32(text.encode()):08x}-"
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}", text)


def draw_losses(axes: Axes, lines: Lines, *, color: str, name: str = "") -> None:
    """Draws the training loss of metric lines as a thin line, the held-out loss as points."""
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "eval_loss" in line]
    prefix = f"{name}: " if name else ""
    if steps:
        axes.plot([s["step"] for s in steps], [s["loss"] for s in steps], color=color, alpha=0.45, lw=1, label=f"{prefix}training")
    if evaluations:
        points = [e["step"] for e in evaluations], [e["eval_loss"] for e in evaluations]
        axes.plot(*points, "o-", color=color, markersize=4, label=f"{prefix}held out")
    axes.set_ylabel("nats per learned token" if is_likelihood(lines) else "loss of the objective")
    axes.grid(alpha=0.25)


def is_likelihood(lines: Lines) -> bool:
    """Whether the loss is a likelihood's, whose exponential is a perplexity; as far as the evaluations say."""
    evaluations = [line for line in lines if "eval_loss" in line]
    return not evaluations or "perplexity" in evaluations[-1]


def compare_losses(runs: Mapping[str, Lines]) -> str:
    """Returns the SVG of several runs' losses, by run name."""
    figure = new_figure(7.2, 3.6)
    axes = figure.add_subplot()
    for number, (name, lines) in enumerate(runs.items()):
        draw_losses(axes, lines, color=f"C{number % 10}", name=name)
    axes.set_xlabel("optimizer step")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)
    return as_svg(figure)


def drawable(name: str) -> str:
    """Returns a label that matplotlib draws as it stands: its own font has no Chinese, and `$` would begin mathematics."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in name).replace("$", r"\$")
