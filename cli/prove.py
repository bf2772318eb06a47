"""`aisc prove`: the numbers. Same loss and gradients on any split, rank count, packing, kernel and engine, and in a plain loop."""

from __future__ import annotations

import dataclasses
import math
import shlex
import signal
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.screens import console, split_values
from configs import compose
from configs.atomic import write_json
from configs.errors import ConfigError, UserError
from configs.facts import facts_of
from configs.rules import check

if TYPE_CHECKING:
    from rich.console import Console

    from train.prove.prove import Asked, Proof
    from train.prove.verdict import Row

MOST_STEPS = 100
MOST_RANKS = 16
# The objective without a plain loop.
UNKNOWN = "reward"


def main(arguments: list[str]) -> int:
    """Runs the verb; 1 when something is broken."""
    options, rest = read_options(arguments)
    asked = ask(compose.attempt(rest), options, shlex.join(rest))
    screen = console()
    proof = run(screen, asked)
    show(screen, proof)
    if "--json" in options:
        write_json(Path(options["--json"]), as_json(proof))
    return 0 if proof.holds else 1


def read_options(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the verb's options and its other words.

    Raises:
        UserError: an option that is none, or a file that cannot be written there: known before a minute's work.
    """
    options, rest = split_values(arguments, values=("--steps", "--ranks", "--json"), flags=("--reduced",))
    if "--json" in options:
        path = Path(options["--json"])
        if not path.parent.is_dir() or path.is_dir():
            raise UserError(f"--json {path}: expected a file in a folder that is there")
    return options, rest


def run(screen: Console, asked: Asked) -> Proof:
    """Proves; a terminal sees which case is under way."""
    from train.prove.prove import prove

    # Ended as Ctrl-C ends it: ranks are processes of their own, and pieces of the data lie in a temporary folder.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    if not screen.is_terminal:
        return prove(asked)
    with screen.status("starting") as status:
        return prove(asked, status.update)


def ask(attempted: compose.Attempted, options: dict[str, str], command: str) -> Asked:
    """Returns what is to be proven.

    Args:
        attempted: the configuration as read.
        options: of the verb.
        command: what the user typed, for advice in errors.

    Raises:
        ConfigError: every problem of the configuration; a model without weights is none with --reduced.
    """
    from train.prove.prove import STEPS, WORLD, Asked

    steps = _number(options, "--steps", STEPS, 2, MOST_STEPS)
    ranks = _number(options, "--ranks", WORLD, 1, MOST_RANKS)
    config = attempted.config
    is_reduced = "--reduced" in options
    facts = facts_of(config)
    if is_reduced and not config.model.path and config.model.arch:
        config.model.random_weights = True
    resolved = compose.resolve(config, facts)
    if resolved.config.objective.name == UNKNOWN:
        attempted.add(
            [
                f"objective={UNKNOWN}: prove has no plain loop for a model that scores answers; prove the same model and engine "
                "with objective=sft on chats"
            ]
        )
    # Weights need not be there for a small shape of the model; its files of data must.
    found = check(resolved.config, facts, trains=True)
    attempted.add([line for line in found if not is_reduced or not line.startswith("model.path=")])
    if attempted.problems:
        raise ConfigError(attempted.problems)
    worlds = [world for world in sorted({WORLD, ranks}) if 1 < world <= ranks]
    return Asked(resolved.config, facts, is_reduced, steps, worlds, command, resolved.reasons.get("engine.name", ""))


def _number(options: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = options.get(name, str(default))
    if not text.isdecimal() or not least <= int(text) <= most:
        raise UserError(f"{name} {text}: expected a number from {least} to {most}")
    return int(text)


def show(screen: Console, proof: Proof) -> None:
    """Prints what was compared, the table, and a sentence for each broken row."""
    about = proof.about
    shape = f"reduced to {about['layers']} layers of {about['hidden']}, random weights" if about["is_reduced"] else "as it is"
    lines = [
        f"model    {about['model']} ({about['kind']}), {shape}, vocabulary {about['vocabulary']:,}"
        + (f", adapter {about['adapter']}" if about["adapter"] != "none" else ""),
        f"data     pieces of {about['documents']} documents, {about['tokens']} tokens, {about['supervised']} learned, "
        f"{about['packed_rows']} packed rows of {about['row_tokens']}; every step is all of it",
        f"against  a plain loop in fp32 on one process, each document alone: {about['steps']} steps, "
        f"clipped at {about['max_grad_norm']:.3g}",
        f"engine   {about['engine']}"
        + (f" (auto: {about['engine_reason']}; engine.name=NAME proves that of your nodes)" if about["engine_reason"] else ""),
        f"rates    {', '.join(f'{name} {rate:.2g}' for name, rate in about['rates'].items())}; yours are not used: these "
        "move the loss enough to see a mistake",
    ]
    for line in lines:
        folded = textwrap.fill(line, screen.width, initial_indent="  ", subsequent_indent=" " * 11, break_long_words=False)
        screen.print(folded, soft_wrap=True, markup=False)
    screen.print()
    print_table(screen, proof.rows)
    broken = [row for row in proof.rows if row.is_ok is False]
    for row in broken:
        screen.print(f"\nBROKEN   {row.sentence}", soft_wrap=True, markup=False, style="bold red")
    held = sum(row.is_ok is True for row in proof.rows)
    verdict = f"{len(broken)} of {held + len(broken)} broken" if broken else f"all {held} hold"
    screen.print(f"\n{verdict}   {proof.seconds:.0f} s on {about['device']}", soft_wrap=True, markup=False)


def print_table(screen: Console, rows: list[Row]) -> None:
    """Prints the rows: largest relative difference of loss and gradient norm, bound, verdict."""
    from rich.text import Text

    width = max(len(row.name) for row in rows)
    screen.print(f"  {'':<{width}}  {'':<5} {'loss':>7}  {'grad norm':>9}  {'bound':>6}", soft_wrap=True, markup=False)
    for row in rows:
        mark, style = {True: ("ok", ""), False: ("BROKEN", "bold red"), None: ("-", "dim")}[row.is_ok]
        figures = "  ".join(f"{_figure(row.figures.get(key)):>{size}}" for key, size in (("loss", 7), ("grad_norm", 9)))
        bound = f"{row.bound:.0e}" if row.bound else ""
        text = f"  {row.name:<{width}}  {row.optimizer:<5} {figures}  {bound:>6}  {mark}"
        if row.note:
            beside = f"{text}   {row.note}"
            text = beside if len(beside) <= screen.width else f"{text}\n      {row.note}"
        screen.print(Text(text, style=style), soft_wrap=True)


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if math.isfinite(value) else "no end"


def as_json(proof: Proof) -> dict[str, Any]:
    """Returns the proof as JSON types."""
    rows = [dataclasses.asdict(row) for row in proof.rows]
    return {"holds": proof.holds, **proof.about, "seconds": round(proof.seconds, 1), "rows": rows, "curves": proof.curves}
