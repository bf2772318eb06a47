"""What the gates found, as lines of a start screen: counts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What was done with rows that a gate found, for its mode.
DONE = {"report": "kept", "drop": "left out of training", "refuse": "refused"}


def done_with(duplicates: Mapping[str, Any], also_held_out: int) -> str:
    """Returns what was done with training rows that repeat held-out ones.

    Args:
        duplicates: `Account.duplicates`.
        also_held_out: documents that a held-out file has letter by letter; these are never trained on.
    """
    if duplicates["done"] != "report" or not also_held_out:
        return DONE[duplicates["done"]]
    if also_held_out >= duplicates["exact"] + duplicates["near"]:
        return DONE["drop"]
    return f"{DONE['report']}, but for {also_held_out:,} that a held-out file has as they are"


def gate_lines(duplicates: Mapping[str, Any], contamination: Mapping[str, Any], also_held_out: int) -> list[str]:
    """Returns a line for each gate that was closed.

    Args:
        duplicates: `Account.duplicates`; contamination: `Account.contamination`; empty when not looked for.
        also_held_out: training documents that a held-out file has.
    """
    lines = []
    if duplicates:
        exact, near = duplicates["exact"], duplicates["near"]
        inside = duplicates["inside_training_exact"] + duplicates["inside_training_near"]
        done = f" ({exact:,} exactly), {done_with(duplicates, also_held_out)}" if exact + near else ""
        among = f"; each other: {inside:,}" if inside else ""
        lines.append(f"training rows that repeat held-out ones: {exact + near:,}{done}{among}")
    if contamination:
        rows, items = contamination["rows"], contamination["items"] - contamination["too_short"]
        met, short = contamination["items_met"], contamination["too_short"]
        done = f" ({met:,} of {items:,} items), {DONE[contamination['done']]}" if rows else f" ({items:,} items)"
        lines.append(f"training rows that hold evaluation items: {rows:,}{done}" + (f"; {short:,} items too short or too common to look for" if short else ""))
    return lines
