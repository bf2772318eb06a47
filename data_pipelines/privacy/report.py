"""What the screen found, by source and kind: counts, never a value. Lies in the prepared folder, mode 0600."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.privacy.kinds import KINDS

NAME = "privacy.json"


@dataclass(slots=True)
class Found:
    """Of one source or chunk: identifiers by kind, and documents with at least one."""

    identifiers: Counter[str] = field(default_factory=Counter)
    documents: int = 0

    def note(self, counts: Counter[str]) -> None:
        """Adds one document."""
        self.identifiers.update(counts)
        self.documents += bool(counts.total())

    def add(self, other: Found) -> None:
        """Adds the counts of a chunk."""
        self.identifiers.update(other.identifiers)
        self.documents += other.documents


def to_json(mode: str, found: Mapping[str, Found]) -> str:
    """Returns the report."""
    sources: dict[str, Any] = {
        name: {"documents_with_identifiers": one.documents, "identifiers": by_kind(one.identifiers)}
        for name, one in found.items()
    }
    return json.dumps({"privacy": mode, "sources": sources, "kinds": KINDS}, indent=1, ensure_ascii=False)


def by_kind(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the counts in the order of the kinds, those that were found."""
    return {kind: counts[kind] for kind in KINDS if counts.get(kind)}


def summary(mode: str, found: Mapping[str, Mapping[str, int]], documents: int) -> list[str]:
    """Returns the lines of a start screen.

    Args:
        mode: data.privacy.
        found: source -> kind -> identifiers.
        documents: that hold at least one.
    """
    total: Counter[str] = Counter()
    for counts in found.values():
        total.update(counts)
    done = {"report": "left as they are", "mask": "replaced by surrogates", "drop": "left out with their documents"}[mode]
    if not total.total():
        return [f"privacy {mode}: no identifiers found"]
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in by_kind(total).items())
    return [
        f"privacy {mode}: {total.total():,} identifiers in {documents:,} documents {done}",
        f"  {kinds}",
    ]
