"""Rows of benchmark files, read in the shapes that benchmarks are published in, to one shape per kind of task.

Every refusal names the file, the row (line of a JSONL file, else the row counted from 1) and the key; no row's text.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from configs.errors import DataError

Row = dict[str, Any]

LETTERS = "ABCDEFGHIJ"
QUESTION_KEYS = ("question", "Question", "sent1", "prompt")
ANSWER_KEYS = ("answer_idx", "answer", "Answer", "label")
DECISIONS = ("yes", "no", "maybe")


class _Wrong(Exception):
    """What is wrong with one row: (key, what is there, what is expected)."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        super().__init__(f"{key}: {found}; expected {expected}")


def read_task_rows(path: Path, shape: str) -> list[Row]:
    """Returns the rows of benchmark file `path` in the one form of `shape`, each with a unique `id`.

    Raises:
        DataError: the file cannot be read, is empty, or a row has another shape.
    """
    make = SHAPES[shape]
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, row in _numbered(path):
        where = f"{path}: {'line' if path.suffix in _LINES else 'row'} {number:,}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: {_kind(row)}; expected an object with keys")
        try:
            made = make(row)
        except _Wrong as wrong:
            raise DataError(f"{where}: {wrong} (task format {shape}, docs/eval.md)") from None
        name = str(row.get("id", number))
        if name in seen:
            raise DataError(f"{where}: id: the same as that of {seen[name]:,}; expected every id once")
        seen[name] = number
        rows.append({"id": name, **made})
    if not rows:
        raise DataError(f"{path}: holds no rows")
    return rows


_LINES = (".jsonl", ".ndjson")


def _numbered(path: Path) -> Iterator[tuple[int, Any]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if path.suffix in _LINES:
            with path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, _parse(line.rstrip(), f"{path}: line {number:,}")
        elif path.suffix == ".json":
            value = _parse(path.read_text(encoding="utf-8-sig"), str(path))
            # PubMedQA publishes one object, its records by their PubMed numbers.
            if isinstance(value, dict) and value and all(isinstance(record, dict) for record in value.values()):
                value = [{"id": name, **record} for name, record in value.items()]
            if not isinstance(value, list):
                raise DataError(f"{path}: {_kind(value)}; expected a list of rows")
            yield from enumerate(value, start=1)
        elif path.suffix in (".csv", ".tsv"):
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from enumerate(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True), start=1)
        else:
            raise DataError(f"{path}: expected .jsonl, .json, .csv or .tsv")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start:,} is not UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: not CSV ({error})") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 0)
        raise DataError(f"{where}: not JSON, {f'line {line:,}, ' if line > 1 else ''}column {column}") from None


def _choice(row: Row) -> Row:
    question = _text(row, _first(row, QUESTION_KEYS, "a question"))
    names, choices = _choices(row)
    return {"question": question, "choices": choices, "answer": _answer(row, names, choices)}


def _choices(row: Row) -> tuple[list[str], list[str]]:
    """Returns (names, texts) of the choices, as a list, a mapping, or keys of their own."""
    for key in ("choices", "options"):
        if key not in row:
            continue
        value = row[key]
        if isinstance(value, dict):
            names, texts = [str(name) for name in value], list(value.values())
        elif isinstance(value, list):
            names, texts = list(LETTERS[: len(value)]), value
        else:
            raise _Wrong(key, _kind(value), "a list of texts, or {A: text, ...}")
        break
    else:
        key = "A" if "A" in row else "ending0"
        keys = [name for name in LETTERS if name in row] or [f"ending{i}" for i in range(10) if f"ending{i}" in row]
        names, texts = list(LETTERS[: len(keys)]), [row[name] for name in keys]
        if not keys:
            raise _Wrong("choices", "missing", "choices, options, or keys A, B, C, D")
    if not 2 <= len(texts) <= len(LETTERS):
        raise _Wrong(key, f"{len(texts)} choices", f"2 to {len(LETTERS)}")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise _Wrong(key, "a choice that is empty or no text", "texts")
    if len(set(texts)) < len(texts):
        raise _Wrong(key, "two choices are the same", "different ones")
    return names, texts


def _answer(row: Row, names: list[str], choices: list[str]) -> int:
    """Returns the index of the right choice, given as its letter, its index from 0, or its text."""
    key = _first(row, ANSWER_KEYS, "the right choice")
    value = row[key]
    if isinstance(value, bool):
        raise _Wrong(key, _kind(value), _answers(names))
    if isinstance(value, str):
        text = value.strip()
        if text in names:
            return names.index(text)
        if text in choices:
            return choices.index(text)
        value = int(text) if text.isascii() and text.isdigit() else value
    if isinstance(value, int):
        # Choices that are named by numbers of their own, {1: ..., 2: ...}, are meant by these: 0 would be another count.
        if all(name.isdecimal() for name in names):
            if str(value) in names:
                return names.index(str(value))
        elif 0 <= value < len(choices):
            return value
    found = str(value) if isinstance(value, int) else "none of the choices" if isinstance(value, str) else _kind(value)
    raise _Wrong(key, found, _answers(names))


def _answers(names: list[str]) -> str:
    number = "" if all(name.isdecimal() for name in names) else f", or its number from 0 to {len(names) - 1}"
    return f"one of {', '.join(names)}{number}, or its text"


def _abstract(row: Row) -> Row:
    key = _first(row, ("CONTEXTS", "contexts", "context"), "the abstract")
    value = row[key]
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        raise _Wrong(key, _kind(value), "a text or a list of texts")
    key = _first(row, ("final_decision", "answer"), "the decision")
    if row[key] not in DECISIONS:
        raise _Wrong(key, "another value", f"one of {', '.join(DECISIONS)}")
    question = _text(row, _first(row, ("QUESTION", "question"), "a question"))
    return {"question": question, "context": "\n".join(parts), "answer": row[key]}


def _prompt(row: Row) -> Row:
    return {"prompt": _text(row, _first(row, ("prompt", "question"), "a prompt"))}


def _refusal(row: Row) -> Row:
    key = _first(row, ("should_refuse",), "true or false")
    value = row[key]
    # A CSV has words.
    value = {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise _Wrong(key, _kind(value), "true or false")
    return {**_prompt(row), "should_refuse": value}


def _values(row: Row) -> Row:
    if "preferred" not in row:
        return _choice(row)
    preferred, rejected = _text(row, "preferred"), row.get("rejected")
    others = [rejected] if isinstance(rejected, str) else rejected
    if not isinstance(others, list) or not others or not all(isinstance(text, str) and text.strip() for text in others):
        raise _Wrong("rejected", "missing" if rejected is None else _kind(rejected), "a text or a list of texts")
    if preferred in others:
        raise _Wrong("rejected", "the same as the preferred answer", "another one")
    return {"question": _prompt(row)["prompt"], "choices": [preferred, *others], "answer": 0}


SHAPES: dict[str, Callable[[Row], Row]] = {
    "choice": _choice,
    "abstract": _abstract,
    "prompt": _prompt,
    "refusal": _refusal,
    "values": _values,
}


def _first(row: Row, keys: tuple[str, ...], what: str) -> str:
    found = next((key for key in keys if row.get(key) is not None), None)
    if found is None:
        raise _Wrong(keys[0], "missing", what + (f" ({', '.join(keys[1:])} would do)" if len(keys) > 1 else ""))
    return found


def _text(row: Row, key: str) -> str:
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise _Wrong(key, "empty" if isinstance(value, str) else _kind(value), "a text")
    return value


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
