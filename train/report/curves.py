"""The curves: losses, and below them gradient norm and learning rate."""

from __future__ import annotations

from configs.runfolder import RunFolder, read_metrics
from train.report.figures import Lines, as_svg, draw_losses, new_figure
from train.report.section import Section

SHOWN_POINTS = 1500


def section(run: RunFolder) -> Section | None:
    """Returns the curves; None before the first step."""
    lines = read_metrics(run.path)
    steps = [line for line in lines if "loss" in line]
    if not steps:
        return None
    # A long run's picture needs no more points than it has pixels.
    every = -(-len(steps) // SHOWN_POINTS)
    note = f"Every {every} steps one is drawn." if every > 1 else ""
    return Section("Curves", svg=draw([*steps[::every], *(line for line in lines if "eval_loss" in line)]), note=note)


def draw(lines: Lines) -> str:
    """Returns the figure as an `<svg>` element."""
    figure = new_figure(7.6, 5.2)
    loss, norm = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    draw_losses(loss, lines, color="C0")
    loss.legend(frameon=False, fontsize=8)
    steps = [line for line in lines if "loss" in line]
    at = [line["step"] for line in steps]
    norm.plot(at, [line["grad_norm"] for line in steps], color="C2", linewidth=1)
    norm.set_ylabel("gradient norm", color="C2")
    norm.set_xlabel("optimizer step")
    norm.grid(alpha=0.25)
    rate = norm.twinx()
    rate.plot(at, [line["lr"] for line in steps], color="C4", linewidth=1)
    rate.set_ylabel("learning rate", color="C4")
    return as_svg(figure)
