"""The curves: losses, below them gradient norm and learning rate; apart: what a preference objective measures, experts' load."""

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
    words = f"Training loss {steps[0]['loss']:.3f} at step {steps[0]['step']:,}, {steps[-1]['loss']:.3f} at step {steps[-1]['step']:,}"
    return Section("Curves", svg=draw([*steps[::every], *(line for line in lines if "eval_loss" in line)]), words=words, note=note)


def preferences(run: RunFolder) -> Section | None:
    """Returns how often held-out pairs come out the right way round, and by how much; None for an objective of likelihood."""
    lines = [line for line in read_metrics(run.path) if "eval_accuracy" in line]
    if not lines:
        return None
    rows = tuple(
        (f"{line['step']:,}", f"{line['eval_accuracy']:.1%}", f"{line['eval_margin']:+.4f}" if "eval_margin" in line else "-")
        for line in ([lines[0], lines[-1]] if len(lines) > 1 else lines)
    )
    words = f"Held-out accuracy {lines[0]['eval_accuracy']:.1%} at step {lines[0]['step']:,}, {lines[-1]['eval_accuracy']:.1%} at step {lines[-1]['step']:,}"
    note = "Accuracy: held-out pairs whose better answer is rated higher; guessing has 50 %. Margin: by how much, on average."
    return Section("Preferences", rows, ("step", "accuracy", "margin"), svg=draw_preferences(lines), words=words, note=note)


def experts(run: RunFolder) -> Section | None:
    """Returns how evenly the routers load their experts; None for a model without any."""
    lines = [line for line in read_metrics(run.path) if "router_load_max" in line]
    if not lines:
        return None
    shown = dict.fromkeys((0, len(lines) // 2, len(lines) - 1))
    rows = tuple(
        (f"{line['step']:,}", f"{line['router_load_max']:.2f}", f"{line['router_load_min']:.2f}" if "router_load_min" in line else "-")
        for line in (lines[at] for at in shown)
    )
    note = (
        "Tokens that an expert got since the line of metrics before, over the mean of its layer, in the worst layer. 1 is even; 0: some expert got "
        "none, and when it stays so it has collapsed: model.router_balance=1e-4 asks for an even load."
    )
    return Section("Experts", rows, ("step", "busiest expert", "least used expert"), note=note)


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


def draw_preferences(lines: Lines) -> str:
    """Returns held-out accuracy and margin over the steps as an `<svg>` element; empty without any."""
    lines = [line for line in lines if "eval_accuracy" in line]
    if not lines:
        return ""
    figure = new_figure(7.6, 2.8)
    accuracy = figure.add_subplot()
    at = [line["step"] for line in lines]
    accuracy.plot(at, [100 * line["eval_accuracy"] for line in lines], "o-", color="C0", markersize=4)
    accuracy.axhline(50, color="#777777", linestyle=":", linewidth=1)
    accuracy.set_ylim(0, 102)
    accuracy.set_ylabel("accuracy, %", color="C0")
    accuracy.set_xlabel("optimizer step")
    accuracy.grid(alpha=0.25)
    if all("eval_margin" in line for line in lines):
        margin = accuracy.twinx()
        margin.plot(at, [line["eval_margin"] for line in lines], "s--", color="C3", markersize=4)
        margin.set_ylabel("margin", color="C3")
    return as_svg(figure)
