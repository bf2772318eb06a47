"""The one console of the command line, and the error for options that a verb does not have."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from configs.errors import UserError
from configs.values import nearest


def console() -> Console:
    """Returns the console: colours on a terminal unless NO_COLOR is set, at least 80 columns elsewhere."""
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen = Console(highlight=False, width=max(80, screen.width))
    return screen


def split_flags(arguments: Sequence[str], flags: Sequence[str]) -> tuple[set[str], list[str]]:
    """Returns (flags given, other arguments).

    Args:
        arguments: of the verb.
        flags: those it knows, such as `--new`.

    Raises:
        UserError: a word that starts with `--` and is none of them.
    """
    given, rest = set(), []
    for word in arguments:
        if not word.startswith("--"):
            rest.append(word)
        elif word in flags:
            given.add(word)
        else:
            close = nearest(word, flags)
            raise UserError(f"{word}: no such option{f'; did you mean {close}?' if close else ''}; options: {', '.join(flags)}")
    return given, rest
