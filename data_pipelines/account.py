"""The account of a preparation: every row read, left out or cut, by source and reason, and what is learned."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.gate_lines import gate_lines
from data_pipelines.privacy.report import summary as privacy_summary

# What a screen calls the rows of an objective.
KINDS = {"sft": "chats", **dict.fromkeys(("dpo", "orpo", "simpo", "reward"), "pairs"), "kto": "labelled answers"}


@dataclass(slots=True)
class SourceAccount:
    """One source.

    Attributes:
        rows: rows read; bad: rows left out by reason (data.max_bad_rows).
        lost: policy -> [documents, learned tokens] that the over-length policy cost.
        identifiers: kind -> identifiers of people that data.privacy found; private: documents that hold one.
        also_held_out: documents left out of training because the held-out file has the same.
        documents, tokens, supervised: what an epoch shows, with `weight` applied.
        share: of an epoch's tokens, 0 to 1.
    """

    path: str = ""
    weight: float = 1.0
    format: str = ""
    rows: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    lost: dict[str, list[int]] = field(default_factory=dict)
    identifiers: dict[str, int] = field(default_factory=dict)
    private: int = 0
    also_held_out: int = 0
    documents: int = 0
    tokens: int = 0
    supervised: int = 0
    share: float = 0.0


@dataclass(slots=True)
class Account:
    """A whole preparation.

    Attributes:
        rows: rows read; bad_rows: of these, left out as unusable.
        documents: training documents of an epoch; held_out: held-out documents.
        groups, held_out_groups: distinct groups on each side; group_by: what makes a group, null is a row's content.
        tokens, supervised: of an epoch; packed_rows and fill (0 to 1) of the training store.
        privacy: data.privacy.
        split: groups of each side and on both, hashes of the sets (`split.proof`).
        duplicates: training rows that repeat held-out ones (data.duplicates); contamination: that hold evaluation items
            (data.decontaminate); counts and lines, empty when not looked for.
        mismatched_cut: completions of other rows (kto's baseline) that lost their end to fit.
        notes: sentences a reader of the account should see.
    """

    objective: str = ""
    sources: dict[str, SourceAccount] = field(default_factory=dict)
    group_by: str | None = None
    rows: int = 0
    bad_rows: int = 0
    documents: int = 0
    held_out: int = 0
    groups: int = 0
    held_out_groups: int = 0
    tokens: int = 0
    supervised: int = 0
    held_out_tokens: int = 0
    held_out_supervised: int = 0
    packed_rows: int = 0
    held_out_packed_rows: int = 0
    fill: float = 0.0
    sequence_length: int = 0
    privacy: str = "off"
    split: dict[str, Any] = field(default_factory=dict)
    duplicates: dict[str, Any] = field(default_factory=dict)
    contamination: dict[str, Any] = field(default_factory=dict)
    mismatched_cut: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Documents of which nothing is left."""
        return sum(
            count[0]
            for source in self.sources.values()
            for policy, count in source.lost.items()
            if policy.startswith("dropped") or policy.endswith("nothing left to learn")
        )

    @property
    def truncated(self) -> int:
        """Documents that lost their end, or were split."""
        return sum(
            count[0]
            for source in self.sources.values()
            for policy, count in source.lost.items()
            if policy in ("truncated", "split")
        )

    @property
    def supervised_lost(self) -> int:
        """Tokens that would have been learned, had every document fitted."""
        return sum(count[1] for source in self.sources.values() for count in source.lost.values())

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Account:
        """Returns the account that `to_json` wrote."""
        sources = {name: SourceAccount(**source) for name, source in values["sources"].items()}
        return cls(**{**values, "sources": sources})

    def summary(self) -> list[str]:
        """Returns the lines of a start screen: what was read, how it was split, what is learned, how it is packed."""
        kind = KINDS.get(self.objective, "documents")
        by = f", by {self.group_by} ({self.groups:,} / {self.held_out_groups:,} groups)" if self.group_by else ""
        learned = self.supervised / self.tokens if self.tokens else 0.0
        held_out = f" / {self.held_out:,} held out" if self.held_out else ", none held out"
        lost = f", {self.supervised_lost:,} learned tokens lost" if self.supervised_lost else ""
        fate = f"{self.dropped:,} dropped, {self.truncated:,} truncated{lost}"
        lines = [
            f"{self.rows:,} {kind} -> {self.documents:,} train{held_out}{by}",
            f"{count_words(self.tokens)} tokens, {count_words(self.supervised)} supervised ({learned:.1%}), {fate}",
            f"{self.packed_rows:,} rows of {self.sequence_length:,}, {self.fill:.1%} full",
        ]
        if self.privacy != "off":
            found = {name: source.identifiers for name, source in self.sources.items()}
            lines += privacy_summary(self.privacy, found, sum(source.private for source in self.sources.values()))
        lines += gate_lines(self.duplicates, self.contamination, sum(one.also_held_out for one in self.sources.values()))
        if self.mismatched_cut:
            lines.append(f"{self.mismatched_cut:,} completions of other rows cut to fit (only kto's baseline reads them)")
        if self.bad_rows:
            lines.append(f"{self.bad_rows:,} unusable rows left out (data.max_bad_rows)")
        trained = {name: source for name, source in self.sources.items() if source.tokens}
        if len(trained) > 1:
            shares = [f"{name} {source.share:.1%} (x{source.weight:g})" for name, source in trained.items()]
            lines.append("shares of tokens: " + "  ".join(shares))
        return lines + self.notes


def count_words(count: int) -> str:
    """Returns a count as a person reads it: 950, 12.4 k, 4.73 M, 2.10 B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if count >= size:
            scale = 1e3 if letter == "k" else size
            value = count / scale
            return f"{value:.2f} {letter}" if value < 10 else f"{value:.1f} {letter}"
    return f"{count:,}"
