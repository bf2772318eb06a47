"""`aisc verify`: every file that a run was made from and that it made, hashed again and compared with its manifest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cli.screens import console, split_values
from configs.errors import UserError
from configs.runfolder import runs_dir
from launch.runs import find_run

if TYPE_CHECKING:
    from rich.console import Console

    from train.verify import Verified

EXIT_SAME, EXIT_CHANGED = 0, 1
SHOWN = 10


def main(arguments: list[str]) -> int:
    """Runs the verb; returns 0 when nothing changed, 1 when something did."""
    options, words = split_values(arguments, values=("run.dir",), flags=("--all",))
    if len(words) != 1:
        raise UserError("aisc verify: expected one RUN")
    from train.verify import verify

    began = time.monotonic()
    found = verify(find_run(words[0], runs_dir(options.get("run.dir"))))
    show(console(), found, seconds=time.monotonic() - began, shows_all="--all" in options)
    return EXIT_CHANGED if found.changes else EXIT_SAME


def show(screen: Console, found: Verified, *, seconds: float, shows_all: bool) -> None:
    """Prints what was compared by run and kind, then each file that changed."""
    from train.verify import KINDS

    for folder in found.runs:
        screen.print(f"{folder.name}   {folder}", soft_wrap=True, markup=False)
        for kind in KINDS:
            number = found.checked.get((folder.name, kind), 0)
            changed = sum(1 for change in found.changes if (change.run, change.kind) == (folder.name, kind))
            if number or changed:
                verdict = f"{changed:,} changed" if changed else "ok"
                screen.print(f"  {kind:<12}{max(number, changed):>6,}   {verdict}", markup=False)
    shown = found.changes if shows_all else found.changes[:SHOWN]
    for change in shown:
        screen.print(f"\n  {change.kind}  {change.path}   ({change.run})", soft_wrap=True, markup=False)
        screen.print(f"    expected  {change.expected}", soft_wrap=True, markup=False)
        screen.print(f"    found     {change.found}", soft_wrap=True, markup=False)
    if len(shown) < len(found.changes):
        screen.print(f"\n  and {len(found.changes) - len(shown):,} more: --all lists them", markup=False)
    total = sum(found.checked.values())
    verdict = f"{len(found.changes):,} of {total:,} changed" if found.changes else f"nothing changed: {total:,} compared"
    screen.print(f"\n{verdict}, {found.size_bytes / 1e9:.2f} GB read, {seconds:.1f} s", markup=False)
