"""`aisc prepare`: read, tokenise, split and pack the data once, on CPU, for any number of runs after it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from cli.configured import load_checked
from cli.screens import console, split_flags

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.console import Console


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    _, rest = split_flags(arguments, ())
    config = load_checked(rest).config
    from data_pipelines.build import prepare
    from train.models import tokenizer_folder

    screen = console()
    with data_progress(screen) as report:
        prepared = prepare(
            config.data,
            config.objective.name,
            str(tokenizer_folder(config.model)),
            seed=config.training.seed,
            on_progress=report,
            command=shlex.join(rest),
        )
    for number, line in enumerate(prepared.account.summary()):
        screen.print(f"  {'data' if number == 0 else '':<9}{line}", soft_wrap=True, markup=False)
    screen.print(f"  {'store':<9}{prepared.folder}", soft_wrap=True, markup=False)
    return 0


def data_progress(screen: Console) -> AbstractContextManager[Callable[[str, int, int], None]]:
    """Returns a context whose value takes (stage, bytes done, bytes in all) and shows them as a bar."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def shown():  # type: ignore[no-untyped-def]
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
            task = progress.add_task("reading", total=None)

            def report(stage: str, done: int, total: int) -> None:
                progress.update(task, description=stage, completed=done, total=total or None)

            yield report

    return shown()
