"""What `aisc doctor` finds: one value for every check, whichever file makes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, what to do when `is_ok` is False."""

    what: str
    found: str
    is_ok: bool = True
    remedy: str = ""
