"""The one console of the command line, and how options are told from other words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from configs.errors import UserError
from configs.values import nearest

# Many points from one command, by Hydra's words for it.
MULTIRUN = ("-m", "--multirun")


def is_multirun(arguments: Sequence[str]) -> bool:
    """True when the command asks for many points."""
    return any(word in MULTIRUN for word in arguments)


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


def split_values(
    arguments: Sequence[str], *, values: Sequence[str] = (), flags: Sequence[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Returns (options by name, other words).

    Args:
        arguments: of the verb.
        values: options that take a value, `--to FILE` or `--to=FILE`; a name without dashes is `name=VALUE` only.
        flags: options that take none; given ones map to the empty string.

    Raises:
        UserError: an option that is none of them, or one without its value.
    """
    given: dict[str, str] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in flags and not equals:
            given[name] = ""
        elif name in values and equals:
            given[name] = value
        elif name in values and name.startswith("--"):
            following = next(words, None)
            if following is None:
                raise UserError(f"{name}: expected a value after it")
            given[name] = following
        elif word.startswith("--"):
            known = [*values, *flags]
            close = nearest(name, known)
            raise UserError(f"{name}: no such option; {f'did you mean {close}?' if close else 'options: ' + ', '.join(known)}")
        else:
            rest.append(word)
    return given, rest
