"""What the model does worse than the one it started from: tasks measured on both, and held-out sources that got worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from train.board.section import BoardSection, Table, Words
from train.dossier import BASE, THIS, Dossier, Figure, Measure

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Compared:
    """A measure of one task on the starting model and on this one.

    `difference` is (value, low, high) of this model minus the starting one on the same items, where they were paired, and
    `p` that of the paired test.
    """

    task: str
    base: Measure
    base_at: str
    mine: Measure
    mine_at: str
    difference: tuple[float, float, float] | None = None
    p: float = 1.0
    difference_at: str = ""

    @property
    def is_apart(self) -> bool | None:
        """Whether there is a difference: a paired interval without 0, else intervals that do not overlap; None: not known.

        A bootstrap of few items is too sure of itself (two that both got worse leave out 0), so the paired test, which is
        exact, must agree.
        """
        if self.difference is not None:
            return (self.difference[1] > 0 or self.difference[2] < 0) and self.p < SIGNIFICANT
        one, two = self.base.interval, self.mine.interval
        return None if one is None or two is None else one[1] < two[0] or two[1] < one[0]

    @property
    def verdict(self) -> str:
        """What the comparison shows, in words."""
        if self.is_apart is None:
            return "no interval: not judged"
        if not self.is_apart:
            return "no difference shown"
        higher = self.mine.value > self.base.value
        if self.mine.higher_is_better is None:
            return "higher" if higher else "lower"
        return "better" if higher == self.mine.higher_is_better else "worse"


def section(dossier: Dossier) -> BoardSection:
    """Returns the comparison with the starting model."""
    pairs = list(compared(dossier))
    missing, gate = [], _forgetting(dossier)
    if not pairs:
        missing.append(
            "The starting model was not measured on the same tasks: what this model has unlearned is not known."
        )
    if not gate:
        missing.append("The forgetting gate was not run: general text was not compared with the starting model.")
    sources = _sources(dossier)
    worse = sum(pair.verdict == "worse" for pair in pairs) + sum(row[-1] == "worse" for row in sources)
    lead: tuple[Words, ...] = ()
    if pairs or sources:
        count = Figure(str(worse), "counted in the tables of this section: verdicts `worse`")
        lead = (
            (
                "Compared with the model that it started from, ",
                count,
                f" of {len(pairs) + len(sources)} figures got worse.",
            ),
        )
    tables = [*([_tasks_table(pairs)] if pairs else []), *([_sources_table(sources)] if sources else [])]
    return BoardSection(
        "What got worse (against the starting model)",
        "能力退步檢查",
        sentences=lead,
        facts=gate,
        tables=tuple(tables),
        missing=tuple(missing),
    )


def compared(dossier: Dossier) -> Iterator[Compared]:
    """Yields the measures that both models have, of the newest evaluation of each."""
    base, mine = _measures(dossier, BASE), _measures(dossier, THIS)
    paired = _paired(dossier)
    for (task, metric), (measure, at) in mine.items():
        if (task, metric) in base:
            other, other_at = base[task, metric]
            key = f"tasks.{task}.metrics.{metric}.value"
            difference, p, difference_at = paired.get((task, metric), (None, 1.0, ""))
            yield Compared(task, other, f"{other_at}: {key}", measure, f"{at}: {key}", difference, p, difference_at)


def _measures(dossier: Dossier, subject: str) -> dict[tuple[str, str], tuple[Measure, str]]:
    return {
        (task.name, measure.name): (measure, file.file)
        for file, task in dossier.of(subject)
        if not task.is_check
        for measure in task.measures
    }


def _paired(dossier: Dossier) -> dict[tuple[str, str], tuple[tuple[float, float, float], float, str]]:
    """Returns this model minus the starting one, and its p, by (task, measure), where both were asked the same items."""
    subject_of = {Path(one.file).stem: one.subject for one in dossier.evaluations}
    found = {}
    for one in dossier.evaluations:
        for other, tasks in dict(one.values.get("comparisons") or {}).items():
            sides = (one.subject, subject_of.get(other))
            if sides not in ((THIS, BASE), (BASE, THIS)):
                continue
            for task, metric, values in ((t, m, v) for t, metrics in tasks.items() for m, v in metrics.items()):
                low, middle, high = (values[key] for key in ("low", "value", "high"))
                if None not in (low, middle, high):
                    spans = (middle, low, high) if sides[0] == THIS else (-middle, -high, -low)
                    found[task, metric] = (spans, values["p"], f"{one.file}: comparisons.{other}.{task}.{metric}.value, low, high, p")
    return found


def _forgetting(dossier: Dossier) -> tuple[tuple[str, Words], ...]:
    """Returns the verdict of the forgetting gate, the newest one of this model; nothing when it was not run."""
    judged = [one for one in dossier.evaluations if one.subject == THIS and one.values.get("forgetting")]
    if not judged:
        return ()
    found, origin = judged[-1].values["forgetting"], f"{judged[-1].file}: forgetting"
    words: Words = (
        Figure("tripped" if found["tripped"] else "passed", f"{origin}.tripped"),
        ": on general text the loss changed by ",
        Figure(f"{found['difference']:+.4f}", f"{origin}.difference"),
        " (interval ",
        Figure(f"{found['low']:+.4f}", f"{origin}.low"),
        " to ",
        Figure(f"{found['high']:+.4f}", f"{origin}.high"),
        "); the gate trips when it is surely above ",
        Figure(f"{found['bound']:g}", f"{origin}.bound"),
        ". Documents: ",
        Figure(f"{found['documents']:,}", f"{origin}.documents"),
    )
    return (("Forgetting gate", words),)


def _tasks_table(pairs: list[Compared]) -> Table:
    origin = "eval/*.json: tasks.*.metrics.*.value"
    caption = (
        f"Tasks on both models. A verdict needs a paired difference whose interval leaves out 0 and whose test gives p below "
        f"{SIGNIFICANT:g}; where the items were not paired, two intervals that do not overlap, which is stricter."
    )
    difference = Figure("difference", "eval/*.json: comparisons.*.*.*.value, low, high, p")
    header = ("task", "measure", Figure("starting model", origin), Figure("this model", origin), difference, "verdict")
    return Table(caption, header, tuple(_row(pair) for pair in pairs))


def _sources_table(rows: tuple[tuple[str | Figure, ...], ...]) -> Table:
    caption = "Error on held-out data by source; lower is better. Without intervals: a small change shows nothing."
    before = Figure("loss before", "attempts/*/metrics.jsonl: eval_loss/* of step 0")
    after = Figure("loss after", "result.json: eval_loss_by_source.*")
    return Table(caption, ("held-out data of", before, after, "verdict"), rows)


def _row(pair: Compared) -> tuple[str | Figure, ...]:
    base, mine = Figure(_spell(pair.base), pair.base_at), Figure(_spell(pair.mine), pair.mine_at)
    difference: str | Figure = "not paired"
    if pair.difference is not None:
        middle, low, high = pair.difference
        difference = Figure(f"{middle:+.3f} ({low:+.3f} to {high:+.3f}), p {pair.p:.2g}", pair.difference_at)
    return (pair.task, pair.mine.name, base, mine, difference, pair.verdict)


def _spell(measure: Measure) -> str:
    interval = measure.interval
    return f"{measure.value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _sources(dossier: Dossier) -> tuple[tuple[str | Figure, ...], ...]:
    """Returns the held-out losses by source before and after."""
    first = next((line for line in dossier.metrics if line.get("step") == 0 and "eval_loss" in line), {})
    rows = []
    for name, after in (dossier.result.get("eval_loss_by_source") or {}).items():
        before = first.get(f"eval_loss/{name}")
        if before is not None:
            verdict = "worse" if after > before else "better" if after < before else "equal"
            was = Figure(f"{before:.4f}", f"attempts/*/metrics.jsonl: eval_loss/{name} of step 0")
            rows.append((name, was, Figure(f"{after:.4f}", f"result.json: eval_loss_by_source.{name}"), verdict))
    return tuple(rows)
