"""What is wrong with rows: found all at once, shown grouped and counted, never with a row's text.

A problem names the file, the line, the key, what was found and what to do. Only column names, role names, types and
numbers appear; the one value ever quoted is an unknown role, when it is one word of at most 20 characters.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.errors import DataError

SHOWN_ROWS = 20
WHOLE_LINE = "(whole line)"
WHOLE_ROW = "(whole row)"
WHOLE_FILE = "(whole file)"
_LONGEST_ROLE = 20
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,39}")


class RowProblem(ValueError):
    """One row cannot be used; raised while it is read, caught by the reader that knows file and line."""

    def __init__(self, key: str, problem: str, remedy: str, *, reason: str | None = None) -> None:
        """`reason` is the problem without what varies from row to row, for counting; null: `problem` itself."""
        super().__init__(f"{key}: {problem}; {remedy}")
        self.key = key
        self.problem = problem
        self.remedy = remedy
        self.reason = reason or problem

    def __reduce__(self) -> Any:
        # An exception is rebuilt from its message by default; problems travel to the reading processes in their chunks.
        return _rebuild, (self.key, self.problem, self.remedy, self.reason)


def _rebuild(key: str, problem: str, remedy: str, reason: str) -> RowProblem:
    return RowProblem(key, problem, remedy, reason=reason)


@dataclass(frozen=True, slots=True)
class BadRow:
    """One unusable row. `line` counts from 1; 0 means the file as a whole."""

    source: str
    file: str
    line: int
    key: str
    problem: str
    remedy: str
    reason: str
    place: str = "line"

    @property
    def ends_file(self) -> bool:
        """True when nothing behind it could be read: such a loss cannot be counted in rows, so it is never allowed."""
        return self.key == WHOLE_FILE


@dataclass(slots=True)
class BadRows:
    """All unusable rows of all files, and how many rows were read."""

    rows: list[BadRow] = field(default_factory=list)
    rows_read: int = 0
    rows_by_file: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.rows)

    def by_reason(self) -> dict[str, dict[str, int]]:
        """Returns counts: source -> reason -> rows."""
        counts: dict[str, dict[str, int]] = {}
        for row in self.rows:
            reasons = counts.setdefault(row.source, {})
            reasons[row.reason] = reasons.get(row.reason, 0) + 1
        return counts


class BadRowsError(DataError):
    """Rows that cannot be used; the message is the whole screen, `bad` holds every row of it."""

    def __init__(self, bad: BadRows, *, allowed: int, command: str) -> None:
        self.bad = bad
        super().__init__(report(bad, allowed=allowed, command=command))


def report(bad: BadRows, *, allowed: int, command: str) -> str:
    """Returns the screen of unusable rows: the first 20, grouped, what is left out counted.

    Args:
        bad: what was found.
        allowed: data.max_bad_rows; more than these were found.
        command: what follows `aisc inspect` to see them all, e.g. the run's YAML.
    """
    files = list(dict.fromkeys(row.file for row in bad.rows))
    where = files[0] if len(files) == 1 else f"{len(files)} files"
    rows_read = sum(bad.rows_by_file[file] for file in files) if len(files) == 1 else bad.rows_read
    verb = "cannot be used"
    whole_files = sum(row.ends_file for row in bad.rows)
    if whole_files == len(bad.rows):
        lines = [f"{where} {verb}", ""]
    else:
        lines = [f"{len(bad):,} of {rows_read:,} rows in {where} {verb}", ""]
    shown = _choose_shown(bad.rows)
    lines += _table(shown, with_files=len(files) > 1)
    lines += _left_out(bad.rows, shown)
    lines.append("")
    lines += _advice(len(bad), whole_files=whole_files, allowed=allowed, command=command)
    return "\n".join(lines)


def _advice(num_bad: int, *, whole_files: int, allowed: int, command: str) -> list[str]:
    if whole_files:
        return ["Nothing was written. Fix these files, or leave them out of the data."]
    limit = f" (now {allowed:,})" if allowed else ""
    return [
        f"Nothing was written. Fix these lines, or go on without them, counted:  data.max_bad_rows={num_bad}{limit}",
        f"All, as a table without their text:  aisc inspect {command} --bad-rows bad.csv",
    ]


def _choose_shown(rows: Sequence[BadRow]) -> list[BadRow]:
    """Returns at most 20 rows: all when they fit, else three of every reason first, then the earliest others."""
    ordered = sorted(rows, key=lambda row: (row.file, row.line))
    if len(ordered) <= SHOWN_ROWS:
        return ordered
    seen: Counter[str] = Counter()
    samples: list[BadRow] = []
    others: list[BadRow] = []
    for row in ordered:
        seen[row.reason] += 1
        (samples if seen[row.reason] <= 3 else others).append(row)
    chosen = (samples + others)[:SHOWN_ROWS]
    return sorted(chosen, key=lambda row: (row.file, row.line))


def _table(rows: Sequence[BadRow], *, with_files: bool) -> list[str]:
    numbers = [f"{row.line:,}" if row.line else "" for row in rows]
    places = [row.place if row.line else "file" for row in rows]
    widths = [
        max(map(len, places), default=0),
        max(map(len, numbers), default=0),
        max((len(row.key) for row in rows), default=0),
        max((len(row.problem) for row in rows), default=0),
    ]
    lines: list[str] = []
    file = ""
    for row, place, number in zip(rows, places, numbers, strict=True):
        if with_files and row.file != file:
            file = row.file
            lines.append(f"  {file}")
        cells = [
            f"{place:<{widths[0]}}  {number:<{widths[1]}}",
            f"{row.key:<{widths[2]}}",
            f"{row.problem:<{widths[3]}}",
        ]
        lines.append("  " + "   ".join([*cells, row.remedy]))
    return lines


def _left_out(rows: Sequence[BadRow], shown: Sequence[BadRow]) -> list[str]:
    """Returns one line per reason of the rows that are not shown."""
    left = Counter(row.reason for row in rows)
    left.subtract(Counter(row.reason for row in shown))
    counted = [(reason, count) for reason, count in left.most_common() if count > 0]
    if not counted:
        return []
    total = sum(count for _, count in counted)
    return ["", f"  and {total:,} more:  " + ",  ".join(f"{count:,} x {reason}" for reason, count in counted)]


def write_csv(rows: Iterable[BadRow]) -> str:
    """Returns the bad rows as CSV text: file, line, key, problem, remedy; no row's text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["source", "file", "place", "number", "key", "problem", "remedy"])
    for row in rows:
        writer.writerow([row.source, row.file, row.place, row.line, row.key, row.problem, row.remedy])
    return out.getvalue()


def quoted(value: object) -> str:
    """Returns an unknown role or kind in quotes when it is one short word; anything else may be a person's text."""
    text = str(value)
    return f'"{text}"' if len(text) <= _LONGEST_ROLE and _WORD.fullmatch(text) else f"a text of {len(text):,} characters"


def column_names(names: Iterable[object]) -> str:
    """Returns the first six of `names` in order, for a message.

    A CSV without a header has its first row for names: only what looks like a name is shown, the rest by its length.
    """
    texts = sorted(map(str, names))[:6]
    shown = [text if _WORD.fullmatch(text) else f"(a name of {len(text):,} characters)" for text in texts]
    return ", ".join(shown)


def type_name(value: object) -> str:
    """Returns the JSON name of a value's type, as in `a list`, `text`, `null`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true/false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)
