"""JSON Lines that survive a kill: one object a line, written at once; a torn last line is ignored. Standard library."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from configs.errors import CheckpointError


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Appends `value` as one line to the private file `path`; a kill tears at most its end."""
    data = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


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


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
