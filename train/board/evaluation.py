"""How well the model does: held-out figures before and after, tasks with their intervals. Checks of the harness are no scores."""

from __future__ import annotations

import math

from train.board.charts import interval_chart
from train.board.section import BoardSection, Chart, Table, Words
from train.dossier import RESULT, THIS, Dossier, Evaluated, Figure, Measure, Task

LABELS = {
    "accuracy": "Better answer rated higher (of held-out pairs; guessing has 50 %)",
    "margin": "Mean distance between better and worse answer",
}


def section(dossier: Dossier) -> BoardSection:
    """Returns what was measured of this model."""
    missing = []
    facts = held_out(dossier)
    if not facts:
        missing.append("The loss on held-out data was not measured.")
    scored = [(file, task) for file, task in dossier.of(THIS) if not task.is_check]
    checks = [(file, task) for file, task in dossier.of(THIS) if task.is_check]
    if not scored:
        missing.append(
            "No evaluation task was run on this model: the run folder has no file in eval/ that measured these weights."
        )
    if any(measure.interval is None for _, task in scored for measure in task.measures):
        missing.append("Some measures have no interval: how far chance alone moves them is not known.")
    tables = [_scores(scored)] if scored else []
    tables += [_checks(checks)] if checks else []
    lead: tuple[Words, ...] = ()
    if scored:
        lead = (
            (
                "An interval says how far the figure could move if other items of the same kind had been asked: the true value lies "
                "in 95 of 100 such intervals. Differences smaller than the intervals show nothing.",
            ),
        )
    charts = tuple(Chart(*made) for made in [interval_chart(dossier)] if made)
    return BoardSection(
        "Evaluation",
        "評估結果",
        sentences=lead,
        facts=facts,
        tables=tuple(tables),
        charts=charts,
        missing=tuple(missing),
    )


def held_out(dossier: Dossier) -> tuple[tuple[str, Words], ...]:
    """Returns the held-out figures before and after training."""
    before, after = dossier.result.get("eval_loss_before"), dossier.result.get("eval_loss")
    if after is None:
        return ()
    facts: list[tuple[str, Words]] = []
    loss = Figure(f"{after:.4f}", f"{RESULT}: eval_loss")
    begun = () if before is None else (Figure(f"{before:.4f}", f"{RESULT}: eval_loss_before"), " before training, ")
    facts.append(("Error on held-out data (loss; lower is better)", (*begun, loss, " after")))
    if _is_likelihood(dossier):
        was = (
            ()
            if before is None
            else (Figure(_perplexity(before), f"computed from {RESULT}: exp(eval_loss_before)"), " before, ")
        )
        now = Figure(_perplexity(after), f"computed from {RESULT}: exp(eval_loss)")
        facts.append(("Perplexity (how many words it hesitates between)", (*was, now, " after")))
    for name, (first, last) in (dossier.result.get("eval_figures") or {}).items():
        was = (
            ()
            if first is None
            else (Figure(_plain(name, first), f"{RESULT}: eval_figures.{name}.0"), " before training, ")
        )
        now = Figure(_plain(name, last), f"{RESULT}: eval_figures.{name}.1")
        facts.append((LABELS.get(name, f"Held-out {name}"), (*was, now, " after")))
    by_source = dossier.result.get("eval_loss_by_source") or {}
    for name, value in by_source.items() if len(by_source) > 1 else ():
        facts.append((f"Loss on {name}", (Figure(f"{value:.4f}", f"{RESULT}: eval_loss_by_source.{name}"),)))
    return tuple(facts)


def spell_interval(measure: Measure) -> str:
    """Returns `0.412 to 0.538`; a dash without an interval."""
    return (
        f"{measure.low:.3f} to {measure.high:.3f}"
        if measure.low is not None and measure.high is not None
        else "not measured"
    )


def _scores(scored: list[tuple[Evaluated, Task]]) -> Table:
    rows = []
    for file, task in scored:
        for measure in task.measures:
            at = f"{file.file}: tasks.{task.name}.metrics.{measure.name}"
            rows.append(
                (
                    Figure(task.name, f"{file.file}: tasks"),
                    measure.name,
                    Figure(f"{measure.value:.3f}", f"{at}.value"),
                    Figure(spell_interval(measure), f"{at}.low, high"),
                    Figure("-" if measure.n is None else f"{measure.n:,}", f"{at}.n"),
                )
            )
    origin = "eval/*.json: tasks.*.metrics"
    header = (
        "task",
        "measure",
        Figure("value", f"{origin}.*.value"),
        Figure("95 % interval", f"{origin}.*.low, high"),
        Figure("items", f"{origin}.*.n"),
    )
    return Table("Tasks measured on the released weights.", header, tuple(rows))


def _checks(checks: list[tuple[Evaluated, Task]]) -> Table:
    rows = tuple(
        (
            Figure(task.name, f"{file.file}: tasks"),
            Figure(
                str(max((m.n or 0 for m in task.measures), default=0)), f"{file.file}: tasks.{task.name}.metrics.*.n"
            ),
            "ran to its end",
        )
        for file, task in checks
    )
    caption = "Checks of the evaluation software: too few or too well known items to say anything of the model. No score is shown."
    return Table(caption, ("check", "items", "outcome"), rows)


def _is_likelihood(dossier: Dossier) -> bool:
    return dossier.section("objective").get("name") in ("sft", "cpt")


def _perplexity(loss: float) -> str:
    return f"{math.exp(min(loss, 700)):.2f}"


def _plain(name: str, value: float) -> str:
    return f"{value:.1%}" if name == "accuracy" else f"{value:.4f}"
