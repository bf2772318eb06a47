"""How times, lengths and long sentences are spelled on a screen of 80 columns. Standard library only."""

from __future__ import annotations

import textwrap
import time

WIDTH = 80


def spell_length(seconds: float) -> str:
    """Returns `12 s`, `8 min` or `5 h 30`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d}"


def spell_time(seconds: float, now: float) -> str:
    """Returns local `02:51:07`; with the day when that is more than half a day away, `11-24 02:51`."""
    local = time.localtime(seconds)
    return time.strftime("%H:%M:%S" if abs(now - seconds) < 43_200 else "%m-%d %H:%M", local)


def spell_minute(seconds: float, now: float) -> str:
    """Returns local `02:51`; with the day when that is more than half a day away."""
    local = time.localtime(seconds)
    return time.strftime("%H:%M" if abs(now - seconds) < 43_200 else "%m-%d %H:%M", local)


def spell_hours(hours: float) -> str:
    """Returns hours with as many digits as they need: `0.031`, `1.6`, `1,240`."""
    if hours == 0:
        return "0"
    return f"{hours:.3f}" if hours < 0.1 else f"{hours:,.1f}" if hours < 1000 else f"{hours:,.0f}"


def spell_share(share: float | None) -> str:
    """Returns `94 %`, or `-`."""
    return "-" if share is None else f"{100 * share:.0f} %"


def spell_money(amount: float | None) -> str:
    """Returns `1,975` or `0.42`; `-` when it is not known."""
    if amount is None:
        return "-"
    return f"{amount:,.0f}" if amount >= 10 else f"{amount:.2f}"


def folded(first: str, text: str, *, indent: int, lines: int) -> list[str]:
    """Returns `first` and `text` in lines of 80 columns, at most so many; what does not fit ends in `…`."""
    wrapped = textwrap.wrap(text, WIDTH - indent, break_long_words=True, break_on_hyphens=False) or [""]
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: WIDTH - indent - 2].rstrip() + " …"]
    return [f"{first:<{indent}}{wrapped[0]}", *(" " * indent + line for line in wrapped[1:])]
