"""Model card and data card of a release: every number in them is taken from a file that travels along, and says which.

A template writes a number only by `figure(file, pointer)`; the pointer is a JSON pointer (RFC 6901) into a file of the
release's folder `evidence/`. The table at the end of a card lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from train.dossier import model_name

EVIDENCE = "evidence"
MODEL_CARD, DATA_CARD = "README.md", "data_card.md"
_TEMPLATES = Path(__file__).parent / "templates"
_ABSENT = "-"


@dataclass(slots=True)
class Figures:
    """The numbers of one card. `files`: name in `evidence/` to its content; `shown`: (text, file, pointer) so far."""

    files: Mapping[str, Any]
    shown: list[tuple[str, str, str]] = field(default_factory=list)

    def figure(self, file: str, pointer: str, digits: int | None = None) -> str:
        """Returns the number at `pointer` of `file` as text and remembers where it came from; `-` where there is none."""
        value = look_up(self.files[file], pointer)
        if value is None:
            return _ABSENT
        text = as_text(value, digits)
        self.shown.append((text, f"{EVIDENCE}/{file}", pointer))
        return text

    def sources(self) -> str:
        """Returns the table of all numbers so far."""
        unique = dict.fromkeys(self.shown)
        rows = [f"| {text} | {cell(file)} | {cell(pointer)} |" for text, file, pointer in unique]
        return "\n".join(["## Where the numbers come from", "", "| number | file | JSON pointer |", "|---|---|---|", *rows])


def as_text(value: float, digits: int | None) -> str:
    """Returns a number as a card shows it: whole ones with separators, others with so many digits."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{2 if digits is None else digits}f}"


def code(text: str) -> str:
    """Returns a name or path as a Markdown code span, whatever characters it has."""
    line = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def cell(text: str) -> str:
    """Returns a code span for a table, where `|` ends a cell even in code (GitHub Flavored Markdown, 4.10)."""
    return code(text).replace("|", "\\|")


def escape(key: str) -> str:
    """Returns a key as one part of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def look_up(value: Any, pointer: str) -> Any:
    """Returns what a JSON pointer names; None when it is not there."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            return None
    return value


def model_card(files: Mapping[str, Any], *, kind: str, config: Mapping[str, Any], evaluations: list[str]) -> str:
    """Returns README.md.

    Args:
        files: name in `evidence/` to its content.
        kind: `adapter`, `merged` or `full`.
        config: the run's frozen configuration as plain values; its numbers are shown from `config.json` in `evidence/`.
        evaluations: names in `files` of evaluations that measured this model.
    """
    manifest = files["manifest.json"]
    adapter = config["adapter"]
    return _render(
        "model_card.md.jinja",
        files,
        run=manifest["run"],
        base=model_name(config["model"]["path"]) if config["model"]["path"] else None,
        objective=config["objective"]["name"],
        adapter=None if adapter["name"] == "none" else adapter["name"],
        kind={"adapter": "an adapter", "merged": "the base with its adapter merged", "full": "a whole model"}[kind],
        ledger=manifest["result"]["ledger"],
        commit=manifest["commit"] or "installed package",
        loss_sources=list(manifest["result"].get("eval_loss_by_source") or {}),
        held_out_figures=list(manifest["result"].get("eval_figures") or {}),
        evaluations=[{"file": name, "name": Path(name).stem, "rows": _metrics(files[name])} for name in evaluations],
        parity=files["parity.json"],
    )


def data_card(files: Mapping[str, Any], *, licences: Mapping[str, str]) -> str:
    """Returns data_card.md; `licences` has one for every source."""
    manifest = files["manifest.json"]
    account = manifest["account"]
    return _render(
        "data_card.md.jinja",
        files,
        run=manifest["run"],
        account=account,
        sources_of=list(account["sources"]),
        licences=licences,
        hashes=manifest["data"],
        fingerprint=manifest["store"]["fingerprint"],
        split=files.get("split.json"),
    )


def _metrics(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns the metrics of an evaluation; those of a check of the harness are no scores and stay out."""
    return [
        {"task": task, "metric": metric, "pointer": f"/tasks/{escape(task)}/metrics/{escape(metric)}"}
        for task, values in evaluation["tasks"].items()
        if not values.get("check")
        for metric in values.get("metrics", {})
    ]


def _render(name: str, evidence: Mapping[str, Any], **values: Any) -> str:
    figures = Figures(evidence)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=False, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    template = environment.get_template(name)
    return template.render(figure=figures.figure, sources=figures.sources, escape=escape, code=code, cell=cell, **values)
