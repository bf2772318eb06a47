"""What the gates found, as lines of a start screen: counts only."""

from __future__ import annotations

from typing import Any

_DUPLICATES = {"report": "kept", "drop": "left out of training", "refuse": "refused"}
_CONTAMINATED = {"report": "kept", "drop": "left out", "refuse": "refused"}


def gate_lines(duplicates: dict[str, Any], contamination: dict[str, Any]) -> list[str]:
    """Returns a line for each gate that was closed.

    Args:
        duplicates: `Account.duplicates`; contamination: `Account.contamination`; empty when not looked for.
    """
    lines = []
    if duplicates:
        exact, near = duplicates["exact"], duplicates["near"]
        inside = duplicates["inside_training_exact"] + duplicates["inside_training_near"]
        done = f" ({exact:,} exactly), {_DUPLICATES[duplicates['done']]}" if exact + near else ""
        among = f"; each other: {inside:,}" if inside else ""
        lines.append(f"training rows that repeat held-out ones: {exact + near:,}{done}{among}")
    if contamination:
        rows, items = contamination["rows"], contamination["items"] - contamination["too_short"]
        met, short = contamination["items_met"], contamination["too_short"]
        done = f" ({met:,} of {items:,} items), {_CONTAMINATED[contamination['done']]}" if rows else f" ({items:,} items)"
        lines.append(f"training rows that hold evaluation items: {rows:,}{done}" + (f"; {short:,} items too short or too common to look for" if short else ""))
    return lines
