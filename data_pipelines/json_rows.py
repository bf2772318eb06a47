"""JSON text as rows, strictly: a key given twice, NaN, or a value that is no object is a RowProblem, never a guess."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_pipelines.problems import WHOLE_FILE, WHOLE_LINE, RowProblem, type_name

Row = dict[str, Any]
_BLANKS = " \t\r\n"


class _DuplicateKey(ValueError):
    pass


class _NotANumber(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        raise _DuplicateKey(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return row


def _constant(name: str) -> Any:
    raise _NotANumber(name)


_PLAIN = json.JSONDecoder()
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def read_array(content: bytes) -> Iterator[tuple[int, Row | RowProblem]]:
    """Yields (line, row or problem) for each element of a JSON array; reading ends at the first broken syntax."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = not_utf8(error)
        yield content.count(b"\n", 0, error.start) + 1, RowProblem(WHOLE_FILE, problem.problem, problem.remedy)
        return
    position = _skip_blanks(text, text.index("[") + 1)
    line, counted = 1, 0
    while position < len(text) and text[position] != "]":
        line += text.count("\n", counted, position)
        counted = position
        try:
            end = _PLAIN.raw_decode(text, position)[1]
        except json.JSONDecodeError as error:
            yield line, RowProblem(WHOLE_FILE, f"not JSON, column {error.colno}", explain(error), reason="not JSON")
            return
        yield line, parse_text(text[position:end])
        position = _skip_blanks(text, end)
        if text[position : position + 1] == ",":
            position = _skip_blanks(text, position + 1)
        elif text[position : position + 1] != "]":
            break
    if position >= len(text) or text[position] != "]":
        yield line, RowProblem(WHOLE_FILE, "the list of rows is not closed", "is the file cut off?")


def _skip_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANKS:
        position += 1
    return position


def parse_text(text: str) -> Row | RowProblem:
    """Returns the object that `text` is, or what is wrong with it."""
    try:
        value = _DECODER.decode(text)
    except _DuplicateKey as error:
        return RowProblem(_key(error), "given twice in one object", "keep one of them", reason="a key given twice")
    except _NotANumber as error:
        return RowProblem(WHOLE_LINE, f"not JSON: {error}", "JSON has no such number; use null or a text")
    except json.JSONDecodeError as error:
        return RowProblem(WHOLE_LINE, f"not JSON, column {error.colno}", explain(error), reason="not JSON")
    except RecursionError:
        return RowProblem(WHOLE_LINE, "nested too deeply", "a row is an object of a few levels")
    if not isinstance(value, dict):
        return RowProblem(WHOLE_LINE, f"{type_name(value)}, not an object", 'a row looks like {"messages": [...]}')
    return value


def _key(error: _DuplicateKey) -> str:
    key = str(error)
    return key if len(key) <= 40 and key.isprintable() else WHOLE_LINE


def explain(error: json.JSONDecodeError) -> str:
    """Returns what a JSON error means for the person who wrote the file."""
    meanings = {
        "Unterminated string": "a string is not closed",
        "Expecting ',' delimiter": "a comma or a closing bracket is missing",
        "Expecting ':' delimiter": "a colon is missing after a key",
        "Expecting property name": "a key in double quotes is expected",
        "Expecting value": "a value is missing",
        "Invalid control character": "a line break or tab inside a string must be written \\n or \\t",
        "Invalid \\escape": "a backslash must be written \\\\",
        "Invalid \\uXXXX": "\\u needs four hexadecimal digits",
        "Extra data": "more follows after the object; one row a line",
        "Illegal trailing comma": "a comma before a closing bracket",
    }
    if error.pos >= len(error.doc.rstrip()):
        return (
            "the line ends too early; is the file cut off?" if "string" not in error.msg else "a string is not closed"
        )
    return next((meaning for start, meaning in meanings.items() if error.msg.startswith(start)), "check this line")


def not_utf8(error: UnicodeDecodeError) -> RowProblem:
    """Returns the problem of bytes that are not UTF-8, counted from the start of the line or file."""
    return RowProblem(WHOLE_LINE, f"not UTF-8, byte {error.start + 1}", "save the file as UTF-8", reason="not UTF-8")


def parse_value(text: str, key: str, expected: str) -> Any:
    """Returns the JSON value that a text column holds.

    Raises:
        RowProblem: `text` is not JSON.
    """
    try:
        return _DECODER.decode(text.strip())
    except (json.JSONDecodeError, _DuplicateKey, _NotANumber, RecursionError):
        raise RowProblem(key, f"text, not {expected}", f"expected {expected}, or JSON of one") from None
