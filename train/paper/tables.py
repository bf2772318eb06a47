"""The tables of a paper: results with intervals, hyper-parameters, data. Each as CSV for machines and as LaTeX for the text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.schema.objective import READERS
from train.board.data import left_out, licence
from train.dossier import BASE, RESULT, THIS, Dossier, Measure, model_name
from train.released import named

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row these two would be its optional argument and its star.
    "[": "{[}",
    "*": "{*}",
}
# Fonts join these into dashes and quotes.
_LIGATURE = re.compile(r"([-'`])(?=\1)")
# Of the configuration; those of `data` and `model` that say how rows become tokens.
_SECTIONS = ("model", "adapter", "data", "objective", "training", "optimizer", "lr_scheduler")
_NOT_SHOWN = (
    "model.arch", "data.sources", "data.store", "data.workers", "data.online", "data.privacy_key", "training.min_steps",
)  # fmt: skip
# A paper is public; where files lie on this machine is not its business.
_MODELS = ("model.path", "model.tokenizer", "objective.reference")
_FILES = ("data.train", "data.validation", "data.chat_template", "data.decontaminate")


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table: its caption, the names of its columns, its rows. `align` is LaTeX's, a letter for each column."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str

    def as_csv(self) -> str:
        """Returns comma-separated values with the header as first line."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows((self.header, *self.rows))
        return out.getvalue()

    def as_latex(self) -> str:
        """Returns a `table` environment that needs no package; Chinese text needs XeLaTeX or LuaLaTeX with a Chinese font."""
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(self.caption)}}}", rf"\label{{tab:{self.name}}}"]
        lines += [rf"\begin{{tabular}}{{{self.align}}}", r"\hline"]
        lines.append(_latex_row(self.header) + r" \hline")
        lines += [_latex_row(row) for row in self.rows]
        return "\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}", ""])


def escape(text: str) -> str:
    """Returns text as LaTeX sets it, character for character."""
    plain = "".join(_ESCAPES.get(character, character) for character in " ".join(text.split()))
    return _LIGATURE.sub(r"\1{}", plain)


def results(dossier: Dossier) -> PaperTable:
    """Returns held-out figures and tasks of this model and of the starting one; checks of the harness are left out."""
    rows = [*_held_out(dossier)]
    for subject in (BASE, THIS):
        for file, task in dossier.of(subject):
            if not task.is_check:
                rows += [(subject, task.name, *_cells(measure), file.file) for measure in task.measures]
    header = ("model", "task", "measure", "value", "95% low", "95% high", "n", "file")
    caption = f"Results of {dossier.name}. Intervals are 95 % intervals; an empty cell was not measured."
    return PaperTable("results", caption, header, tuple(rows), "lllrrrrl")


def hyperparameters(dossier: Dossier) -> PaperTable:
    """Returns every setting that the run read, as it was frozen."""
    rows = tuple((key, _spell(_shown(key, value))) for key, value in _settings(dossier))
    caption = f"Settings of {dossier.name} ({dossier.config_origin})."
    return PaperTable("hyperparameters", caption, ("setting", "value"), rows, "ll")


def data(dossier: Dossier) -> PaperTable:
    """Returns the sources with their counts."""
    rows = tuple(
        (
            name,
            licence(dossier, name, one)[0] or "not stated",
            str(one["rows"]),
            str(one["documents"]),
            str(one["tokens"]),
            str(one["supervised"]),
            f"{one['share']:.4f}",
            left_out(one),
        )
        for name, one in dossier.account.get("sources", {}).items()
    )
    header = ("source", "licence", "rows read", "documents", "tokens", "learned tokens", "share of tokens", "left out")
    held_out = dossier.account.get("held_out", 0)
    return PaperTable(
        "data", f"Training data of {dossier.name}; {held_out} documents are held out.", header, rows, "llrrrrrl"
    )


def _held_out(dossier: Dossier) -> Iterator[tuple[str, ...]]:
    first = next((line for line in dossier.metrics if line.get("step") == 0 and "eval_loss" in line), {})
    by_source = dossier.result.get("eval_loss_by_source") or {}
    for subject, loss, parts in (
        (BASE, dossier.result.get("eval_loss_before"), {name: first.get(f"eval_loss/{name}") for name in by_source}),
        (THIS, dossier.result.get("eval_loss"), by_source),
    ):
        if loss is not None:
            yield (subject, "held-out data", "loss", f"{loss:.6f}", "", "", "", RESULT)
        for name, value in parts.items() if len(by_source) > 1 else ():
            if value is not None:
                yield (subject, f"held-out data: {name}", "loss", f"{value:.6f}", "", "", "", RESULT)


def _cells(measure: Measure) -> tuple[str, ...]:
    numbers = ("" if value is None else f"{value:.6f}" for value in (measure.value, measure.low, measure.high))
    return (measure.name, *numbers, "" if measure.n is None else str(measure.n))


def _settings(dossier: Dossier) -> Iterator[tuple[str, Any]]:
    objective = dossier.section("objective").get("name")
    has_adapter = dossier.section("adapter").get("name") != "none"
    for section in _SECTIONS:
        for name, value in dossier.section(section).items():
            key = f"{section}.{name}"
            unread = section == "objective" and objective not in READERS.get(name, (objective,))
            if (
                key in _NOT_SHOWN
                or unread
                or (section == "adapter" and not has_adapter and name != "name")
                or value in (None, [], {})
            ):
                continue
            yield key, value


def _shown(key: str, value: Any) -> Any:
    """Returns the value of a setting, a file or a model by its name."""
    if key in _MODELS:
        return model_name(str(value))
    if key in _FILES:
        return [named(str(one)) for one in value] if isinstance(value, (list, tuple)) else named(str(value))
    return value


def _spell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_spell(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_spell(one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(escape(cell) for cell in cells) + r" \\"
