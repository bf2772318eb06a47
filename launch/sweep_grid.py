"""The grammar of swept values, and the points it makes: `optimizer.lr=5e-5,1e-4 training.seed=range(1,4)`.

The grammar is Hydra's; the parser is ours. Hydra 1.3.8's refuses non-ASCII text, `~` and `=` in a value, and gives
values back as it prints them (`1e-4` as 0.0001, `3 epochs` as `3\\ epochs`); here each value stays as typed, in every
language, and so do the tables. A test compares the two parsers on everything that Hydra's can read.

    a=1,2,3   a='x,y',z   a=[1,2],[3,4]   a=x\\,y     commas outside quotes and brackets; a list is one value
    a=choice(1,2,3)                                 the same
    a=range(1,4)   a=range(4)   a=range(0,1,0.25)   1 2 3; 0 1 2 3; 0 0.25 0.5 0.75: the end is left out
    a=interval(0,0.3)   a=tag(log,interval(1e-5,1e-3))   a=int(interval(8,64))      for a search only
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from configs.errors import ConfigError

MOST_POINTS = 1000
SEARCHED = ("interval", "tag", "int")
# Hydra's other functions: of no use in a list that is written down, and never taken for text by accident.
UNUSED = ("sort", "shuffle", "glob", "float", "str", "bool", "json_str", "extend_list")
_CALL = re.compile(r"([a-z_]+)\((.*)\)", re.DOTALL)
_OPENING = {"(": ")", "[": "]", "{": "}"}


class BadSweep(ValueError):
    """A swept value that cannot be read; the message continues `key=value: `."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A key and its values, as typed."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A key of a search and the numbers it may take: `low` and `high` belong to it; on a logarithmic scale with `log`."""

    key: str
    kind: Literal["int", "float"]
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Swept:
    """What a command line sweeps: `fixed` words as given, and the swept keys in order."""

    fixed: tuple[str, ...]
    axes: tuple[Axis | Range, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One point: its number from 0 and its values by key, as typed."""

    number: int
    values: dict[str, str]

    @property
    def words(self) -> list[str]:
        """The point as `key=value` arguments."""
        return [f"{key}={value}" for key, value in self.values.items()]

    def __str__(self) -> str:
        return " ".join(self.words)


def axis_from(values: Mapping[str, Any]) -> Axis | Range:
    """Returns an axis from its fields, as JSON keeps them."""
    return Axis(values["key"], tuple(values["values"])) if "values" in values else Range(**values)


def read_words(words: Sequence[str]) -> Swept:
    """Returns what `[RUN.yaml] key=value ...` sweeps.

    Raises:
        ConfigError: every value that cannot be read, and keys that are given twice.
    """
    fixed: list[str] = []
    axes: list[Axis | Range] = []
    problems: list[str] = []
    for word in words:
        key, equals, text = word.partition("=")
        try:
            axis = read_value(key, text) if equals and not key.startswith("sweep.") else None
        except BadSweep as error:
            problems.append(f"{word}: {error}")
            continue
        if axis is None:
            fixed.append(word)
        elif key in (known.key for known in axes):
            problems.append(f"{word}: {key} is swept twice; expected each key once")
        else:
            axes.append(axis)
    given = {word.partition("=")[0] for word in fixed if "=" in word}
    problems += [f"{axis.key}: is given one value and swept too; expected one of both" for axis in axes if axis.key in given]
    if problems:
        raise ConfigError(problems)
    return Swept(tuple(fixed), tuple(axes))


def space_words(space: Mapping[str, Any]) -> list[str]:
    """Returns `sweep.space` as words: a list is its values, a text is read as on the command line."""
    return [f"{key}={_spell_list(value) if isinstance(value, list) else _spell(value)}" for key, value in space.items()]


def _spell_list(values: list[Any]) -> str:
    return f"choice({','.join(_spell(value) for value in values)})"


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_value(key: str, text: str) -> Axis | Range | None:
    """Returns the values that `key=text` sweeps over; None when it is one plain value.

    Raises:
        BadSweep: it looks swept and is not well formed.
    """
    called = _CALL.fullmatch(text.strip())
    name = called[1] if called else ""
    if called and name in UNUSED:
        raise BadSweep(f"{name}() is not used here; write the values in the order you want, or quote the text: '{text}'")
    if called and name in SEARCHED:
        return _read_range(key, text.strip(), is_log=False, is_int=False)
    if called and name == "range":
        return Axis(key, _count(split_top(called[2])))
    if called and name == "choice":
        values = split_top(called[2])
    elif "," in text:
        values = split_top(text)
    else:
        return None
    if len(values) == 1 and name != "choice":
        return None
    if "" in values:
        raise BadSweep("an empty value between commas; write '' for an empty text")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise BadSweep(f"{twice} is there twice")
    return Axis(key, tuple(values))


def split_top(text: str) -> list[str]:
    """Returns the parts of `text` between commas outside quotes and brackets; `\\,` is a comma inside a value.

    Raises:
        BadSweep: a bracket or a quote is not closed.
    """
    parts: list[str] = []
    closers: list[str] = []
    current = quote = ""
    characters = iter(text)
    for character in characters:
        if character == "\\" and not quote and not closers:
            following = next(characters, "")
            current += following if following in ("," , "\\") else character + following
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and current.rstrip()[-1:] in ("", ",", ":", *_OPENING):
            quote = character
        elif character in _OPENING:
            closers.append(_OPENING[character])
        elif closers and character == closers[-1]:
            closers.pop()
        elif character == "," and not closers:
            parts.append(current.strip())
            current = ""
            continue
        current += character
    if quote or closers:
        raise BadSweep(f"{quote or closers[-1]} is missing; quote a text that holds commas: key='a, b'")
    return [*parts, current.strip()]


def _count(arguments: list[str]) -> tuple[str, ...]:
    """Returns the numbers of range(stop), range(start, stop) or range(start, stop, step), exact in decimals."""
    try:
        numbers = [Decimal(argument) for argument in arguments]
    except InvalidOperation:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not all(number.is_finite() for number in numbers):
        raise BadSweep("expected range(stop), range(start,stop) or range(start,stop,step), all numbers")
    start, stop = (Decimal(0), numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    step = numbers[2] if len(numbers) == 3 else Decimal(1)
    if step == 0 or (stop - start) / step <= 0:
        raise BadSweep("an empty range")
    if (stop - start) / step > MOST_POINTS:
        raise BadSweep(f"more than {MOST_POINTS} values")
    values = []
    while (start < stop) if step > 0 else (start > stop):
        values.append(str(start))
        start += step
    return tuple(values)


def _read_range(key: str, text: str, *, is_log: bool, is_int: bool) -> Range:
    called = _CALL.fullmatch(text)
    arguments = split_top(called[2]) if called else []
    if called and called[1] == "tag" and len(arguments) == 2 and arguments[0] == "log":
        return _read_range(key, arguments[1], is_log=True, is_int=is_int)
    if called and called[1] == "int" and len(arguments) == 1:
        return _read_range(key, arguments[0], is_log=is_log, is_int=True)
    try:
        if not called or called[1] != "interval" or len(arguments) != 2:
            raise ValueError
        low, high = float(arguments[0]), float(arguments[1])
    except ValueError:
        raise BadSweep("expected interval(low,high), tag(log,interval(low,high)) or int(interval(low,high))") from None
    if not low < high or (is_log and low <= 0):
        raise BadSweep(f"expected low < high{', both more than 0 on a logarithmic scale' if is_log else ''}")
    return Range(key, "int" if is_int else "float", low, high, is_log)


def grid_points(axes: Sequence[Axis | Range]) -> list[Point]:
    """Returns the points of a grid; the last key varies fastest.

    Raises:
        ConfigError: nothing is swept, a key has an interval, or the points are too many.
    """
    intervals = [axis.key for axis in axes if isinstance(axis, Range)]
    if intervals:
        raise ConfigError([f"{key}: an interval has no list of points; sweep.trials=20 searches it in 20 runs" for key in intervals])
    lists = [axis for axis in axes if isinstance(axis, Axis)]
    if not lists:
        raise ConfigError("-m: nothing is swept; expected key=value,value such as optimizer.lr=5e-5,1e-4, or sweep.space")
    count = 1
    for axis in lists:
        count *= len(axis.values)
    if count > MOST_POINTS:
        raise ConfigError(f"-m: {count:,} points; at most {MOST_POINTS:,} in one sweep")
    combinations = itertools.product(*(axis.values for axis in lists))
    keys = [axis.key for axis in lists]
    return [Point(number, dict(zip(keys, values, strict=True))) for number, values in enumerate(combinations)]


def sweep_hash(parts: Sequence[tuple[Mapping[str, str], str]]) -> str:
    """Returns 6 hex for (values, identity) of all points: what is swept and what each point is.

    The order of the keys and of the points does not matter; another base configuration gives another sweep.
    """
    plain = sorted([json.dumps(dict(values), sort_keys=True, ensure_ascii=False), identity] for values, identity in parts)
    return hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).hexdigest()[:6]
