"""Chunks of a file as rows with their line numbers; what is not a row is a RowProblem in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from data_pipelines.json_rows import Row, not_utf8, parse_text
from data_pipelines.problems import WHOLE_LINE, RowProblem
from data_pipelines.sources import BOM, LONGEST_LINE_BYTES, Chunk


def rows_of(chunk: Chunk, kind: str) -> Iterator[tuple[int, Row | RowProblem]]:
    """Yields (line or row number, row or what is wrong with it) for each row of `chunk`; blank lines are no rows."""
    payload = chunk.payload
    if isinstance(payload, bytes):
        yield from _text_rows(payload, chunk.first) if kind == "text" else _json_rows(payload, chunk.first)
    elif isinstance(payload, pa.RecordBatch):
        for i, row in enumerate(payload.to_pylist()):
            yield chunk.first + i, without_nulls(row)
    else:
        yield from zip(chunk.positions, payload, strict=True)


def first_rows(chunk: Chunk, most: int) -> tuple[Chunk, int]:
    """Returns (the chunk cut to its first `most` rows, how many rows are left in it); blank lines are no rows."""
    payload = chunk.payload
    if isinstance(payload, bytes):
        lines = payload.split(b"\n")
        numbers = [i for i, line in enumerate(lines) if line.strip()][:most]
        kept = b"\n".join(lines[: numbers[-1] + 1]) if numbers else b""
        return replace(chunk, payload=kept), len(numbers)
    if isinstance(payload, pa.RecordBatch):
        cut = payload.slice(0, most)
        return replace(chunk, payload=cut), cut.num_rows
    return replace(chunk, payload=payload[:most], positions=chunk.positions[:most]), min(most, len(payload))


def _json_rows(payload: bytes, first: int) -> Iterator[tuple[int, Row | RowProblem]]:
    for i, line in enumerate(payload.split(b"\n")):
        if line.strip():
            yield first + i, parse_line(line)


def _text_rows(payload: bytes, first: int) -> Iterator[tuple[int, Row | RowProblem]]:
    """Yields every line that is not blank as one document, in a column named `text`."""
    for i, line in enumerate(payload.split(b"\n")):
        if not line.strip():
            continue
        try:
            yield first + i, {"text": line.decode("utf-8").rstrip("\r")}
        except UnicodeDecodeError as error:
            yield first + i, not_utf8(error)


def parse_line(line: bytes) -> Row | RowProblem:
    """Returns the row of one JSON line, or what is wrong with it."""
    if len(line) > LONGEST_LINE_BYTES:
        return RowProblem(WHOLE_LINE, f"longer than {LONGEST_LINE_BYTES >> 20} MiB", "write one row a line")
    try:
        text = line.removeprefix(BOM).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        return not_utf8(error)
    return parse_text(text)


def without_nulls(value: Any) -> Any:
    """Returns `value` without the null entries of its objects: tables give every row every column."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
