"""One value against one schema field: what the user wrote, turned into the field's type or into a problem."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from typing import Any, Union

_LONGEST_SHOWN = 80
FORBIDDEN_KEYS = ("_target_", "_args_", "_partial_", "_convert_", "_recursive_")


class BadValue(ValueError):
    """The value does not fit; the message continues `path=value: `."""


def hints_of(schema: type) -> dict[str, Any]:
    """Returns the resolved type of each field of a dataclass."""
    return typing.get_type_hints(schema)


def mapping_of(hint: Any) -> Any:
    """Returns the mapping among the types that `hint` allows; None when there is none."""
    return next((o for o in (hint, *typing.get_args(hint)) if typing.get_origin(o) is dict), None)


def fields_of(schema: type) -> dict[str, dataclasses.Field[Any]]:
    """Returns the fields of a dataclass by name, in order."""
    return {field.name: field for field in dataclasses.fields(schema)}


def nearest(name: str, names: typing.Iterable[str]) -> str | None:
    """Returns the most similar of `names`, or None when none is close."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return found[0] if found else None


def show(value: Any) -> str:
    """Returns a value as a person writes it in a YAML, cut when it is long."""
    if isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def coerce(value: Any, hint: Any, choices: tuple[str, ...] = ()) -> Any:
    """Returns `value` as type `hint`.

    Args:
        value: from YAML (already typed) or from the command line (text).
        hint: type of the field.
        choices: legal strings, when limited.

    Raises:
        BadValue: it cannot be.
    """
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is Union else (hint,)
    if value is None:
        if type(None) in options:
            return None
        raise BadValue(f"expected {describe(hint, choices)}, not null")
    for option in options:
        if option is type(None):
            continue
        try:
            return _coerce_one(value, option, choices, only_auto=int in options or float in options)
        except BadValue as error:
            last = error
    if len(options) > 1:
        raise BadValue(f"expected {describe(hint, choices)}")
    raise last


def _coerce_one(value: Any, hint: Any, choices: tuple[str, ...], *, only_auto: bool) -> Any:
    origin = typing.get_origin(hint)
    if hint is str:
        return _text(value, choices, only_auto)
    if hint in (int, float, bool):
        return _number(value, hint)
    if origin is list:
        items = value if isinstance(value, list) else [value]
        return [coerce(item, typing.get_args(hint)[0]) for item in items]
    if origin is dict:
        if not isinstance(value, dict):
            raise BadValue("expected a mapping {key: value}")
        refuse_targets(value)
        inner = typing.get_args(hint)[1]
        return {str(k): v if inner is Any else coerce(v, inner) for k, v in value.items()}
    return value


def _text(value: Any, choices: tuple[str, ...], only_auto: bool) -> str:
    if isinstance(value, (dict, list, bool)):
        raise BadValue(f"expected {describe(str, choices)}")
    text = str(value)
    if only_auto and text != "auto":
        raise BadValue("expected auto")
    if choices and text not in choices:
        close = nearest(text, choices)
        hint = f"; did you mean {close}?" if close else ""
        raise BadValue(f"expected {' | '.join(choices)}{hint}")
    return text


def _number(value: Any, kind: type) -> Any:
    wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
    if kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise BadValue(f"expected {wanted}")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadValue(f"expected {wanted}")
    try:
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError
        if kind is int and number != int(number):
            raise ValueError
        return int(value) if kind is int and isinstance(value, str) and value.strip("+-").isdigit() else kind(number)
    except ValueError:
        raise BadValue(f"expected {wanted}") from None


def refuse_targets(value: Any) -> None:
    """Raises BadValue when a mapping, however deep, names code to be called."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in FORBIDDEN_KEYS:
                raise BadValue(f"{key} is not allowed: a configuration holds values, not code")
            refuse_targets(inner)
    elif isinstance(value, list):
        for inner in value:
            refuse_targets(inner)


def describe(hint: Any, choices: tuple[str, ...] = ()) -> str:
    """Returns a type as words for help and errors."""
    if choices:
        return " | ".join(choices)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if hint in names:
        return names[hint]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is Union:
        options = typing.get_args(hint)
        words = ["auto" if o is str and any(n in options for n in (int, float)) else describe(o) for o in options]
        return " or ".join(words)
    return {list: "a list", dict: "a mapping"}.get(typing.get_origin(hint), "a mapping")
