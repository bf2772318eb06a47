"""`aisc prepare`: read, tokenise, split and pack the data once, on CPU, for any number of runs after it."""

from __future__ import annotations

import shlex

from cli.configured import load_for_data
from cli.screens import console, split_flags


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    _, rest = split_flags(arguments, ())
    config = load_for_data(rest)
    from data_pipelines.build import prepare
    from train.data_progress import data_progress
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
