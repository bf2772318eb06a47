"""What came out: losses before and after, tokens, ledger, where the model is."""

from __future__ import annotations

import math

from configs.runfolder import RunFolder, read_json, read_metrics, state_of
from train.report.section import Section


def section(run: RunFolder) -> Section:
    """Returns the result of a finished run; how far an unfinished one came, and why it ended."""
    result = read_json(run.result_path)
    if result is None:
        steps = max((int(line["step"]) for line in read_metrics(run.path)), default=0)
        status = state_of(run.path)
        return Section("Result", (("state", status.state), ("steps done", f"{steps:,}"), ("cause", status.cause or "-")))
    rows = []
    if result["eval_loss"] is not None:
        before, after = result["eval_loss_before"], result["eval_loss"]
        change = f" ({100 * (after / before - 1):+.1f} %)" if before else ""
        rows.append(("held-out loss", f"{_number(before)} before, {_number(after)} exported{change}"))
        figures = result.get("eval_figures", {})
        rows += [(f"held-out {name}", f"{_number(first)} before, {_number(last)} exported") for name, (first, last) in figures.items()]
        if not figures:
            rows.append(("perplexity", f"{_perplexity(before)} before, {_perplexity(after)} exported"))
        by_source = result["eval_loss_by_source"]
        if len(by_source) > 1:
            rows.append(("by source", ", ".join(f"{name} {_number(loss)}" for name, loss in by_source.items())))
        rows.append(("best step", f"{result['best_step']:,} of {result['steps']:,}; loss of the last step {_number(result['eval_loss_last'])}"))
    rows += [
        ("seen", f"{result['tokens']:,} tokens, {result['supervised']:,} of them learned"),
        ("sample ledger", result["ledger"]),
        ("time", f"{result['duration_s']:,.0f} s in {result['attempts']} attempt{'s' if result['attempts'] != 1 else ''}"),
        ("model", str(result.get("model", run.path / "model"))),
    ]
    return Section("Result", tuple(rows))


def _number(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _perplexity(loss: float | None) -> str:
    return "-" if loss is None else f"{math.exp(min(loss, 700)):.2f}"
