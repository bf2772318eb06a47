"""JSON Lines that survive a kill: one object a line, written at once; a torn last line is ignored. Standard library."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from configs.errors import CheckpointError

# More than the longest line of a ledger or of phases.
_END_BYTES = 4096
_encode = json.JSONEncoder(ensure_ascii=False).encode


class LineFile:
    """The private file `path`, open for appending: a line a step, without opening it a thousand times an hour."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, value: dict[str, Any]) -> None:
        """Appends `value` as one line, handed to the system at once; a kill tears at most its end."""
        data = (_encode(value) + "\n").encode()
        while data:
            data = data[os.write(self._descriptor, data) :]

    def keep_until(self, step: int) -> None:
        """Cuts off the lines from the first one on whose `step` is higher."""
        kept = 0
        for line in self._path.read_bytes().splitlines(keepends=True):
            value = _parse(line)
            if value is None or int(value["step"]) > step:
                break
            kept += len(line)
        os.ftruncate(self._descriptor, kept)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Appends `value` as one line to the private file `path`; a kill tears at most its end."""
    file = LineFile(path)
    try:
        file.append(value)
    finally:
        file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of `path`, oldest first; none when there is no such file.

    Raises:
        CheckpointError: a line other than the last is not a JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    values = []
    for number, line in enumerate(lines, start=1):
        value = _parse(line)
        if value is not None:
            values.append(value)
        elif number < len(lines):
            raise CheckpointError(f"{path}: line {number} is not a JSON object; the file was changed since")
    return values


def read_last_line(path: Path) -> dict[str, Any] | None:
    """Returns the newest object of `path`, of which only the end is read; None when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    return next((value for line in reversed(lines) if (value := _parse(line)) is not None), None)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
