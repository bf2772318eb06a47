"""What the model does worse than the one it started from: tasks measured on both, and held-out sources that got worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from train.board.section import BoardSection, Table, Words
from train.dossier import BASE, THIS, Dossier, Figure, Measure


@dataclass(frozen=True, slots=True)
class Compared:
    """A measure of one task on the starting model and on this one."""

    task: str
    base: Measure
    base_at: str
    mine: Measure
    mine_at: str

    @property
    def is_apart(self) -> bool:
        """Whether the two intervals do not overlap."""
        one, two = self.base.interval, self.mine.interval
        return one is not None and two is not None and (one[1] < two[0] or two[1] < one[0])

    @property
    def verdict(self) -> str:
        """What the comparison shows, in words."""
        if self.base.interval is None or self.mine.interval is None:
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
    missing = []
    if not pairs:
        missing.append(
            "The starting model was not measured on the same tasks: what this model has unlearned is not known."
        )
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
        tables=tuple(tables),
        missing=tuple(missing),
    )


def compared(dossier: Dossier) -> Iterator[Compared]:
    """Yields the measures that both models have, of the newest evaluation of each."""
    base = {}
    for file, task in dossier.of(BASE):
        if not task.is_check:
            base.update({(task.name, measure.name): (measure, file.file) for measure in task.measures})
    mine = {}
    for file, task in dossier.of(THIS):
        if not task.is_check:
            mine.update({(task.name, measure.name): (measure, file.file) for measure in task.measures})
    for (task_name, metric), (measure, at) in mine.items():
        if (task_name, metric) in base:
            other, other_at = base[task_name, metric]
            key = f"tasks.{task_name}.metrics.{metric}.value"
            yield Compared(task_name, other, f"{other_at}: {key}", measure, f"{at}: {key}")


def _tasks_table(pairs: list[Compared]) -> Table:
    origin = "eval/*.json: tasks.*.metrics.*.value"
    caption = (
        "Tasks on both models. A verdict needs intervals that do not overlap, which is stricter than a paired test."
    )
    header = ("task", "measure", Figure("starting model", origin), Figure("this model", origin), "verdict")
    return Table(caption, header, tuple(_row(pair) for pair in pairs))


def _sources_table(rows: tuple[tuple[str | Figure, ...], ...]) -> Table:
    caption = "Error on held-out data by source; lower is better. Without intervals: a small change shows nothing."
    before = Figure("loss before", "attempts/*/metrics.jsonl: eval_loss/* of step 0")
    after = Figure("loss after", "result.json: eval_loss_by_source.*")
    return Table(caption, ("held-out data of", before, after, "verdict"), rows)


def _row(pair: Compared) -> tuple[str | Figure, ...]:
    return (
        pair.task,
        pair.mine.name,
        Figure(_spell(pair.base), pair.base_at),
        Figure(_spell(pair.mine), pair.mine_at),
        pair.verdict,
    )


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
