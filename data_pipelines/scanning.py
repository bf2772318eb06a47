"""Reading all files in parallel, once: documents into a spill file, bad rows and counts into memory."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from configs.schema import DataSection, SourceSection
from data_pipelines.answers import Answers, check_options
from data_pipelines.duplicates import AllMarks, MarkFile
from data_pipelines.formats import FORMATS, check_format, columns_of, detect, expected, formats_for, rivals
from data_pipelines.gates import Gates, make_gates
from data_pipelines.privacy.report import Found
from data_pipelines.privacy.screen import make_screen
from data_pipelines.problems import WHOLE_FILE, BadRows, RowProblem, column_names
from data_pipelines.reading import ChunkResult, FileFormat, Lost, Reader, Task, bad_row, count_lost
from data_pipelines.rows import first_rows, rows_of
from data_pipelines.sources import Chunk, InputFile, read_chunks
from data_pipelines.tokenize import Encoder, load_tokenizer, read_template, template_of
from data_pipelines.workers import map_ordered, num_workers

Progress = Callable[[str, int, int], None]
# Below this, starting processes costs more than they save.
_SMALL_BYTES = 4 << 20
_ROWS_LOOKED_AT = 100


@dataclass(slots=True)
class Scan:
    """What reading found. `lengths` to `marked` have one entry per document, in reading order.

    `marked` is the number of its row in `marks`; `answers` says what each document is to a preference objective; None for the others.
    """

    files: Sequence[InputFile]
    bad: BadRows = field(default_factory=BadRows)
    lost: dict[str, dict[str, Lost]] = field(default_factory=dict)
    private: dict[str, Found] = field(default_factory=dict)
    rows_by_source: dict[str, int] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    supervised: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    groups: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    file_of: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    marked: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    answers: Answers | None = None
    ids: NDArray[np.uint32] | None = None
    mask: NDArray[np.bool_] | None = None
    gates: Gates | None = None
    marks: AllMarks | None = None
    leaks: dict[int, list[int]] = field(default_factory=dict)
    items_met: Counter[int] = field(default_factory=Counter)

    def close(self) -> None:
        """Lets go of the spill file."""
        self.ids = self.mask = self.marks = None


def make_reader(
    data: DataSection, objective: str, tokenizer_path: str, files: Sequence[InputFile], *, held_out_from: int | None = None
) -> tuple[Reader, int]:
    """Returns what reads a chunk, and the size of the vocabulary; without `held_out_from` the gates are open.

    Raises:
        DataError: the tokenizer or the template cannot be used.
    """
    check_options(data, objective)
    tokenizer = load_tokenizer(tokenizer_path)
    sources = data.named_sources()
    only_text = all(file.kind == "text" or _section(sources, file).format == "text" for file in files)
    source = read_template(data.chat_template)
    needs_template = not only_text and (source or tokenizer.chat_template or objective != "cpt")
    template = template_of(tokenizer, dict(data.template_args), source) if needs_template else None
    encoder = Encoder(tokenizer, learn_all=objective == "cpt")
    reader = Reader(
        files=files,
        encoder=encoder,
        template=template,
        objective=objective,
        system_prompt=data.system_prompt,
        group_by=data.group_by,
        sequence_length=data.sequence_length,
        overlength=data.overlength,
        screen=make_screen(data),
        gates=None if held_out_from is None else make_gates(data, held_out_from=held_out_from),
    )
    return reader, len(tokenizer)


def _section(sources: dict[str, SourceSection], file: InputFile) -> SourceSection:
    """Returns the section of a file's source; held-out files are read like the first source."""
    return sources.get(file.source) or next(iter(sources.values()))


def scan(reader: Reader, data: DataSection, *, on_progress: Progress | None, keep: Path | None) -> Scan:
    """Reads every file once.

    Args:
        reader: turns a chunk into documents.
        data: formats, columns and the number of processes.
        on_progress: called with ("reading", bytes done, bytes in all).
        keep: folder for the documents' tokens; None keeps only what is wrong.
    """
    found = Scan(reader.files, gates=reader.gates)
    sizes = [sum(path.stat().st_size for path in file.hashed_paths()) for file in reader.files]
    processes = 1 if sum(sizes) < _SMALL_BYTES else num_workers(data.workers)
    tasks = _tasks(reader, data, found)
    spill = _Spill(keep) if keep else None
    done = 0
    with spill or contextlib.nullcontext():
        for result in map_ordered(reader.read, tasks, processes):
            _count(found, result)
            if spill:
                spill.add(result)
            done = min(done + result.num_bytes, sum(sizes))
            if on_progress:
                on_progress("reading", done, sum(sizes))
    _check_files(found)
    if spill:
        spill.finish(found)
    return found


def _tasks(reader: Reader, data: DataSection, found: Scan) -> Iterator[Task]:
    """Yields the chunks of all files with how to read them; the format of a file is that of its first rows."""
    sources = data.named_sources()
    left: dict[str, int] = {}
    for number, file in enumerate(reader.files):
        section = _section(sources, file)
        form = (
            FileFormat(section.format, columns_of(section.format, dict(section.columns), file.source))
            if section.format != "auto"
            else None
        )
        if form:
            _note_format(reader, found, file, form)
        for chunk in _limited(read_chunks(file, number), data.limit, left, file.source):
            if isinstance(chunk, tuple):
                line, problem = chunk
                yield Task(Chunk(number, line, []), form, problem)
                continue
            if form is None:
                shown = _detect(chunk, file, dict(section.columns), reader.objective)
                if isinstance(shown, RowProblem):
                    yield Task(Chunk(number, 0, []), None, shown)
                    break
                form = shown
                if form:
                    _note_format(reader, found, file, form)
            yield Task(chunk, form)


def _limited(
    chunks: Iterator[Chunk | tuple[int, RowProblem]], limit: int | None, left: dict[str, int], source: str
) -> Iterator[Chunk | tuple[int, RowProblem]]:
    """Yields chunks until `limit` rows of the source were yielded; `left` counts down over its files."""
    for chunk in chunks:
        if limit is None:
            yield chunk
            continue
        rows = left.get(source, limit)
        if rows <= 0:
            return
        if isinstance(chunk, tuple):
            left[source] = rows - 1
            yield chunk
        else:
            cut, taken = first_rows(chunk, rows)
            left[source] = rows - taken
            yield cut


def _note_format(reader: Reader, found: Scan, file: InputFile, form: FileFormat) -> None:
    check_format(form.name, reader.objective, file.path)
    before = found.formats.get(file.source)
    found.formats[file.source] = form.name if before in (None, form.name) else f"{before}, {form.name}"
    if form.name != "text" and reader.template is None:
        raise DataError(
            f"{file.path}: holds chats, and the tokenizer has no chat template; data.chat_template=FILE.jinja gives one"
        )


def _detect(
    chunk: Chunk, file: InputFile, columns: dict[str, str], objective: str
) -> FileFormat | RowProblem | None:
    """Returns the format of the first rows, one of the objective's if there is any; None when no row of them parses."""
    keys = ""
    other: str | None = None
    for looked_at, (_, row) in enumerate(rows_of(chunk, file.kind)):
        if isinstance(row, RowProblem):
            continue
        name = detect(row, columns, objective)
        if name in formats_for(objective):
            if several := rivals(name, row, columns):
                return _undecided(several, row, columns, file)
            return FileFormat(name, columns_of(name, columns, file.source))
        other = other or name
        keys = keys or column_names(row)
        if looked_at >= _ROWS_LOOKED_AT:
            break
    if other:
        return FileFormat(other, columns_of(other, columns, file.source))
    if not keys:
        return None
    return RowProblem(
        WHOLE_FILE,
        f"format not recognised: {keys}",
        f"expected {expected(objective)}; or map them with columns",
        reason="format not recognised",
    )


def _undecided(several: list[str], row: dict[str, Any], columns: dict[str, str], file: InputFile) -> RowProblem:
    """Returns the problem of a file whose rows hold a conversation twice."""
    names = [columns_of(name, columns, file.source)[key] for name in several for key in FORMATS[name].REQUIRED]
    return RowProblem(
        WHOLE_FILE,
        f"a conversation twice in a row: {', '.join(names)}",
        f"say which is learned, beside data.sources.NAME.path: data.sources.NAME.format={' or '.join(several)}",
        reason="a conversation twice",
    )


def _count(found: Scan, result: ChunkResult) -> None:
    file = found.files[result.file]
    found.bad.rows += result.bad
    found.bad.rows_read += result.rows_read
    found.bad.rows_by_file[file.path] += result.rows_read
    found.rows_by_source[file.source] = found.rows_by_source.get(file.source, 0) + result.rows_read
    found.private.setdefault(file.source, Found()).add(result.private)
    count_lost(found.lost.setdefault(file.source, {}), result.lost)
    if result.looked.leaks:
        found.leaks.setdefault(result.file, []).extend(result.looked.leaks)
        found.items_met.update(result.looked.items)


def _check_files(found: Scan) -> None:
    """Adds a problem for each file without a single row."""
    named = {row.file for row in found.bad.rows}
    for file in found.files:
        if not found.bad.rows_by_file[file.path] and file.path not in named:
            found.bad.rows.append(
                bad_row(file, 0, RowProblem(WHOLE_FILE, "no rows", "the file is empty; leave it out"))
            )


class _Spill:
    """Tokens of all documents in two files, numbers per document in memory."""

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / "ids", folder / "mask")
        self._files: list[IO[bytes]] = [path.open("wb") for path in self._paths]
        self._columns: list[list[NDArray[Any]]] = [[], [], [], [], [], []]
        self._marks = MarkFile(folder)
        self._answers: list[Answers] = []

    def __enter__(self) -> _Spill:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()
        self._marks.close()

    def add(self, result: ChunkResult) -> None:
        """Appends the documents of one chunk."""
        first_mark = self._marks.add(result.file, result.looked.marks)
        if not len(result.lengths):
            return
        self._files[0].write(result.ids.tobytes())
        self._files[1].write(result.mask.tobytes())
        starts = np.cumsum(result.lengths) - result.lengths
        supervised = np.add.reduceat(result.mask.view(np.uint8), starts, dtype=np.int64)
        numbers = np.full(len(result.lengths), result.file, np.int64)
        for column, values in zip(
            self._columns, (result.lengths, supervised, result.rows, result.groups, numbers, first_mark + result.marked), strict=True
        ):
            column.append(values)
        if result.answers is not None:
            self._answers.append(result.answers)

    def finish(self, found: Scan) -> None:
        """Hands everything to `found`, the tokens memory-mapped; after the files are closed."""
        if not self._columns[0]:
            return
        columns = map(np.concatenate, self._columns)
        found.lengths, found.supervised, found.rows, found.groups, found.file_of, found.marked = columns
        found.answers = Answers.joined(self._answers) if self._answers else None
        found.ids = np.memmap(self._paths[0], np.uint32, "r")
        found.mask = np.memmap(self._paths[1], np.bool_, "r")
        found.marks = self._marks.finish()
