"""How a benchmark shows its result: one table, then prediction, ratio and verdict as JSON."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table


def verdict(holds: bool, figures: str) -> str:
    """Returns `met: FIGURES` or `not met: FIGURES`."""
    return f"{'met' if holds else 'not met'}: {figures}"


def show(title: str, result: dict[str, Any]) -> None:
    """Prints `result["measured"]` (one dictionary a row, equal keys) as a table, and the rest of `result` as JSON."""
    console = Console()
    rows: list[dict[str, Any]] = result["measured"]
    table = Table(title=title, title_justify="left")
    for key in rows[0]:
        table.add_column(key, justify="left" if key == "name" else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console.print(table)
    console.print_json(json.dumps({key: value for key, value in result.items() if key != "measured"}))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1 else f"{value:.5f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
