"""The bar of a preparation. A module of its own: most runs find their store ready and need none of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def data_progress(console: Console | None) -> Iterator[Callable[[str, int, int], None]]:
    """Yields what takes (stage, bytes done, bytes in all) and shows it, from the first call on, when there is a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=console is None or not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total or None)

        yield report
