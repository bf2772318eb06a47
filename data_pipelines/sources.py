"""The files behind a source, and their bytes in chunks for the reading processes.

A source's path is a file, a folder, a glob, a folder saved by `datasets`, or `hub:NAME`. Files are read once, in order,
in chunks of about a megabyte; `rows.py` turns a chunk into rows. A file is never held in memory as a whole, except a
JSON array (its syntax has no lines to cut at) of at most 2 GiB.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from configs.errors import DataError
from data_pipelines.json_rows import read_array
from data_pipelines.problems import WHOLE_FILE, WHOLE_LINE, RowProblem, column_names

CHUNK_BYTES = 1 << 20
LONGEST_LINE_BYTES = 32 << 20
LARGEST_ARRAY_BYTES = 2 << 30
ROWS_PER_CHUNK = 512
BOM = b"\xef\xbb\xbf"
HUB_PREFIX = "hub:"

KIND_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file (or saved data set) of a source. `kind` says how it is read; `columns` are known for tables only."""

    source: str
    path: str
    kind: str

    @property
    def place(self) -> str:
        """What a position in it is called: `line` in text files, `row` in tables."""
        return "row" if self.kind in ("parquet", "saved", "hub") else "line"

    def hashed_paths(self) -> list[Path]:
        """Returns the files whose bytes are this input's content; empty for a hub name."""
        if self.kind == "hub":
            return []
        path = Path(self.path)
        return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive rows of one file, not yet parsed. `payload` is bytes of whole lines, a table or parsed rows."""

    file: int
    first: int
    payload: bytes | pa.RecordBatch | list[Any]
    positions: list[int] = field(default_factory=list)
    num_bytes: int = 0


def find_files(source: str, path: str, *, online: bool) -> list[InputFile]:
    """Returns the files of one source, in the order in which they are read.

    Raises:
        DataError: nothing there, an unknown kind of file, or a hub name while data.online is false.
    """
    if path.startswith(HUB_PREFIX):
        if not online:
            raise DataError(f"{path}: fetching from the hub is off; data.online=true allows it")
        return [InputFile(source, path, "hub")]
    expanded = Path(path).expanduser()
    if expanded.is_dir():
        return _files_of_folder(source, expanded)
    if expanded.is_file():
        return [InputFile(source, str(expanded), kind_of(expanded))]
    matches = sorted(match for match in glob.glob(str(expanded), recursive=True) if os.path.isfile(match))
    if not matches:
        what = "no file matches" if glob.has_magic(path) else "no such file or folder"
        raise DataError(f"{path}: {what}")
    return [InputFile(source, match, kind_of(Path(match))) for match in matches]


def _files_of_folder(source: str, folder: Path) -> list[InputFile]:
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return [InputFile(source, str(folder), "saved")]
    if (folder / "dataset_dict.json").is_file():
        return [InputFile(source, str(folder), "saved")]
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and _plain_suffix(path) in KIND_OF_SUFFIX
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise DataError(
            f"{folder}: no data file in this folder; expected {', '.join(KIND_OF_SUFFIX)} or a saved data set"
        )
    return [InputFile(source, str(path), kind_of(path)) for path in files]


def _plain_suffix(path: Path) -> str:
    """Returns the suffix that names the kind, below a compression suffix, in lower case."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def kind_of(path: Path) -> str:
    """Returns how a file is read, from its name; a `.json` file is looked into (an array, or one object a line)."""
    kind = KIND_OF_SUFFIX.get(_plain_suffix(path))
    if kind is None:
        raise DataError(
            f"{path}: unknown kind of file {_plain_suffix(path) or '(no suffix)'}; "
            f"expected {', '.join(KIND_OF_SUFFIX)}, or one of these with {', '.join(COMPRESSED)}"
        )
    if kind != "json":
        return kind
    with open_bytes(path) as file:
        start = file.read(4096).removeprefix(BOM).lstrip()
    return "json" if start.startswith(b"[") else "jsonl"


def open_bytes(path: Path | str) -> IO[bytes]:
    """Returns the file's bytes as a stream, decompressed by its suffix."""
    suffix = Path(path).suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(path))
    if suffix == ".bz2":
        return bz2.open(path, "rb")
    if suffix == ".xz":
        return lzma.open(path, "rb")
    if suffix == ".zst":
        return io.BufferedReader(_ArrowStream(pa.input_stream(str(path), compression="zstd")))
    return open(path, "rb")


class _ArrowStream(io.RawIOBase):
    """A decompressing Arrow stream behind Python's own buffered reader."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


def read_chunks(file: InputFile, number: int) -> Iterator[Chunk | tuple[int, RowProblem]]:
    """Yields the chunks of `file`, and (line, problem) for what cannot even be cut into rows.

    Args:
        file: what to read.
        number: its index, carried in each chunk.

    Damage of the container (a truncated gzip, a broken Parquet footer) is one problem at the place it was met.
    """
    readers = {
        "json": _read_array,
        "csv": _read_csv,
        "tsv": _read_csv,
        "parquet": _read_parquet,
        "saved": _read_saved,
        "hub": _read_saved,
    }
    reader = readers.get(file.kind, _read_lines)
    try:
        yield from reader(file, number)
    except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        yield (
            0,
            RowProblem(
                WHOLE_FILE,
                f"damaged or unreadable ({_kind(error)})",
                "copy it again, or test it with its own tool",
            ),
        )


def _kind(error: Exception) -> str:
    return "zlib error" if isinstance(error, zlib.error) else type(error).__name__


def _read_lines(file: InputFile, number: int) -> Iterator[Chunk | tuple[int, RowProblem]]:
    """Cuts at line ends, about 1 MiB at a time; a line over 32 MiB is skipped without being held."""
    line = 1
    rest = bytearray()
    skipping = False
    with open_bytes(file.path) as stream:
        first = True
        while block := stream.read(CHUNK_BYTES):
            if first:
                block = block.removeprefix(BOM)
                first = False
            if skipping:
                end = block.find(b"\n")
                if end < 0:
                    continue
                block, skipping, line = block[end + 1 :], False, line + 1
            cut = block.rfind(b"\n") + 1
            if not cut:
                rest += block
                if len(rest) > LONGEST_LINE_BYTES:
                    yield line, _too_long()
                    rest, skipping = bytearray(), True
                continue
            payload, rest = bytes(rest) + block[:cut], bytearray(block[cut:])
            yield Chunk(number, line, payload, num_bytes=len(payload))
            line += payload.count(b"\n")
    if rest:
        yield Chunk(number, line, bytes(rest), num_bytes=len(rest))


def _too_long() -> RowProblem:
    return RowProblem(
        WHOLE_LINE,
        f"longer than {LONGEST_LINE_BYTES >> 20} MiB",
        "is the file one line without line ends? write one row a line",
    )


def _read_array(file: InputFile, number: int) -> Iterator[Chunk | tuple[int, RowProblem]]:
    with open_bytes(file.path) as stream:
        content = stream.read(LARGEST_ARRAY_BYTES + 1)
    if len(content) > LARGEST_ARRAY_BYTES:
        yield (
            0,
            RowProblem(
                WHOLE_FILE, f"a JSON array over {LARGEST_ARRAY_BYTES >> 30} GiB", "write it as JSONL, one row a line"
            ),
        )
        return
    rows: list[Any] = []
    lines: list[int] = []
    for line, row in read_array(content.removeprefix(BOM)):
        rows.append(row)
        lines.append(line)
        if len(rows) >= ROWS_PER_CHUNK:
            yield Chunk(number, lines[0], rows, lines, len(content) // 100)
            rows, lines = [], []
    if rows:
        yield Chunk(number, lines[0], rows, lines)


def _read_csv(file: InputFile, number: int) -> Iterator[Chunk | tuple[int, RowProblem]]:
    """Yields parsed records with the line each starts on; the header names the columns."""
    csv.field_size_limit(LONGEST_LINE_BYTES)
    # Bytes that are no UTF-8 come through as lone surrogates, so that each such record is named instead of one block.
    with io.TextIOWrapper(
        open_bytes(file.path), encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as text:
        reader = csv.reader(text, delimiter="\t" if file.kind == "tsv" else ",", strict=True)
        rows: list[Any] = []
        lines: list[int] = []
        header: list[str] | None = None
        start = 1
        try:
            for record in reader:
                if header is None:
                    header = record
                    if problem := _header_problem(header):
                        yield 1, problem
                        return
                elif record:
                    rows.append(_record(header, record))
                    lines.append(start)
                start = reader.line_num + 1
                if len(rows) >= ROWS_PER_CHUNK:
                    yield Chunk(number, lines[0], rows, lines, sum(map(len, map(str, rows))))
                    rows, lines = [], []
        except csv.Error as error:
            # Where the quotes are wrong nobody knows where the next record starts.
            yield start, RowProblem(WHOLE_FILE, f"not CSV ({error})", "check the quotes", reason="not CSV")
    if rows:
        yield Chunk(number, lines[0], rows, lines, sum(map(len, map(str, rows))))


def _header_problem(header: list[str]) -> RowProblem | None:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        return RowProblem(WHOLE_FILE, f"two columns named {column_names([twice])}", "give each column its own name")
    if not _is_utf8(header):
        return RowProblem(WHOLE_FILE, "the header is not UTF-8", "save the file as UTF-8")
    return None


def _is_utf8(fields: list[str]) -> bool:
    try:
        "".join(fields).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _record(header: list[str], record: list[str]) -> dict[str, str] | RowProblem:
    if len(record) != len(header):
        return RowProblem(
            WHOLE_LINE,
            f"{len(record)} fields, the header has {len(header)}",
            "quote fields that hold the separator",
            reason="fields and header differ",
        )
    if not _is_utf8(record):
        return RowProblem(WHOLE_LINE, "not UTF-8", "save the file as UTF-8")
    return dict(zip(header, record, strict=True))


def _read_parquet(file: InputFile, number: int) -> Iterator[Chunk | tuple[int, RowProblem]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file.path) as table:
        yield from _batches(table.iter_batches(batch_size=ROWS_PER_CHUNK), number)


def _batches(batches: Iterator[pa.RecordBatch], number: int) -> Iterator[Chunk]:
    row = 1
    for batch in batches:
        yield Chunk(number, row, batch, num_bytes=batch.nbytes)
        row += batch.num_rows


def _read_saved(file: InputFile, number: int) -> Iterator[Chunk | tuple[int, RowProblem]]:
    """Reads a folder of `save_to_disk`, or a hub name, through `datasets`; of several splits the one named train."""
    import datasets

    if file.kind == "hub":
        data = datasets.load_dataset(file.path.removeprefix(HUB_PREFIX), split="train")
    else:
        data = datasets.load_from_disk(file.path)
        if isinstance(data, datasets.DatasetDict):
            if "train" not in data:
                raise DataError(
                    f"{file.path}: no split named train; it has {', '.join(sorted(data))}: give one of these folders"
                )
            data = data["train"]
    tables = (table for table in data.with_format("arrow").iter(batch_size=ROWS_PER_CHUNK))
    yield from _batches((batch for table in tables for batch in table.combine_chunks().to_batches()), number)
