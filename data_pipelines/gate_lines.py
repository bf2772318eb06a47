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
        done = f"repeat held-out ones ({exact:,} exactly), {_DUPLICATES[duplicates['done']]}"
        across = f"{exact + near:,} training rows {done}" if exact + near else "no training row repeats a held-out one"
        inside = duplicates["inside_training_exact"] + duplicates["inside_training_near"]
        lines.append(f"duplicates: {across}" + (f"; {inside:,} repeat each other" if inside else ""))
    if contamination:
        rows, items = contamination["rows"], contamination["items"] - contamination["too_short"]
        done = f"{rows:,} training rows hold {contamination['items_met']:,} of {items:,} items, {_CONTAMINATED[contamination['done']]}"
        short = f"; {contamination['too_short']:,} too short to look for" if contamination["too_short"] else ""
        lines.append(f"evaluation: {done if rows else f'none of {items:,} items in the training rows'}{short}")
    return lines
