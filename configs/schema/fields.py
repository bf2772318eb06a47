"""How a schema field is declared: its default, its help text and whether it is part of a run's identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    identity: bool,
    factory: Callable[[], Any] | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declares one configuration field.

    Args:
        default: value when the user says nothing.
        help: one sentence: what it is, its unit and range, what null or `auto` means.
        identity: True when another value makes another run (its loss curve may differ).
        factory: builds a mutable default; excludes `default`.
        choices: the legal values of a string field; empty when it is free.
    """
    metadata = {"help": help, "identity": identity, "choices": choices}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
