"""`aisc inspect`: real packed rows through the real collator, in colour or as a private page; or every unusable row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cli.configured import load_checked
from cli.screens import console, split_values
from configs.atomic import write_file
from configs.errors import UserError
from configs.schema import RunConfig

if TYPE_CHECKING:
    from rich.console import Console

    from data_pipelines.build import Prepared
    from data_pipelines.showing import Part

DEFAULT_ROWS = 2
STYLES = {True: "bold green", False: "dim"}


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    options, rest = split_values(arguments, values=("--rows", "--html", "--bad-rows"))
    config = load_checked(rest).config
    screen = console()
    if "--bad-rows" in options:
        return write_bad_rows(screen, config, Path(options["--bad-rows"]))
    try:
        num_rows = int(options.get("--rows", DEFAULT_ROWS))
    except ValueError as error:
        raise UserError(f"--rows {options['--rows']}: expected a number") from error
    from data_pipelines.build import prepare
    from data_pipelines.tokenize import load_tokenizer
    from train.data_progress import data_progress
    from train.models import tokenizer_folder

    tokenizer_path = str(tokenizer_folder(config.model))
    with data_progress(screen) as report:
        prepared = prepare(
            config.data,
            config.objective.name,
            tokenizer_path,
            seed=config.training.seed,
            on_progress=report,
            command=" ".join(rest),
        )
    rows = first_rows(prepared, load_tokenizer(tokenizer_path), config, num_rows)
    if "--html" in options:
        from cli.inspect_page import render

        target = Path(options["--html"])
        write_file(target, render(prepared, rows))
        screen.print(f"{target}   private (0600): it shows your text", soft_wrap=True, markup=False)
    else:
        show(screen, prepared, rows)
    return 0


def first_rows(prepared: Prepared, tokenizer: Any, config: RunConfig, num_rows: int) -> list[tuple[int, list[Part]]]:
    """Returns (row number, its documents) for the first rows that training will see."""
    from data_pipelines.collate import collate
    from data_pipelines.order import Order
    from data_pipelines.showing import parts_of

    store = prepared.train
    order = Order(store.num_rows, store.fingerprint, config.training.seed, max(1, min(num_rows, store.num_rows)))
    chosen = order.rows(0)
    pad_id = tokenizer.pad_token_id
    batch = collate(store, chosen, pad_id if pad_id is not None else 0)
    return list(zip(chosen.tolist(), parts_of(batch, store, tokenizer), strict=True))


def show(screen: Console, prepared: Prepared, rows: list[tuple[int, list[Part]]]) -> None:
    """Prints the account, the lengths and the rows."""
    from data_pipelines.showing import length_histogram

    for number, line in enumerate(prepared.account.summary()):
        screen.print(f"  {'data' if number == 0 else '':<9}{line}", soft_wrap=True, markup=False)
    screen.print("\n  tokens per document", style="bold")
    for line in length_histogram(prepared.train).lines():
        screen.print(f"  {line}", markup=False)
    screen.print(Text.assemble("\n  ", ("learned", STYLES[True]), "   ", ("read, not learned", STYLES[False])))
    for number, parts in rows:
        screen.print(f"\nrow {number:,}", style="bold")
        for part in parts:
            if part.is_padding:
                screen.print(f"── {part.num_tokens:,} tokens of padding", style="cyan")
                continue
            screen.print(f"── {part.origin}: {part.num_tokens:,} tokens, {part.num_learned:,} learned", style="cyan")
            text = Text()
            for piece in part.pieces:
                text.append(piece.text, style=STYLES[piece.is_learned])
            screen.print(text, soft_wrap=True)


def write_bad_rows(screen: Console, config: RunConfig, target: Path) -> int:
    """Writes every unusable row as CSV without its text; returns the exit code."""
    from data_pipelines.build import find_bad_rows
    from data_pipelines.problems import write_csv
    from train.data_progress import data_progress
    from train.models import tokenizer_folder

    with data_progress(screen) as report:
        bad = find_bad_rows(
            config.data, config.objective.name, str(tokenizer_folder(config.model)), on_progress=report
        )
    write_file(target, write_csv(bad.rows))
    screen.print(f"{len(bad):,} of {bad.rows_read:,} rows cannot be used   {target}", soft_wrap=True, markup=False)
    return 2 if len(bad) else 0
