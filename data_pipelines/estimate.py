"""How many tokens a data section will give, before it is prepared: from a seeded sample of its rows, without torch.

Plain JSONL and text files are sampled by seeking, so the size of a file does not matter; everything else is read
through once and some of its chunks are looked at. A sampled row goes through the same template, tokenizer and mask as in
`prepare`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import DataError
from configs.schema import DataSection
from data_pipelines.formats import check_format, columns_of, detect, expected
from data_pipelines.problems import RowProblem, column_names
from data_pipelines.reading import ChunkResult, FileFormat, Reader, Task
from data_pipelines.rows import rows_of
from data_pipelines.sources import COMPRESSED, Chunk, InputFile, find_files, read_chunks
from data_pipelines.split import share_of
from data_pipelines.tokenize import Encoder, read_template, template_of

# Objective that a file of a format is for; others are for sft.
OBJECTIVE_OF = {"text": "cpt", "preference": "dpo", "kto": "kto"}
# Per source: places looked at in its files, and bytes or rows read at each.
PLACES = 48
_PLACE_BYTES = 32 << 10
_PLACE_ROWS = 16
# Fill of packed rows: what best fit reaches on all but tiny sets.
_USUAL_FILL = 0.999


@dataclass(slots=True)
class Estimate:
    """Expected training tokens, learned ones among them, and rows of `sequence_length`."""

    tokens: int
    supervised: int
    rows: int


@dataclass(slots=True)
class _Sampled:
    """Sums over the sampled rows of one file, and how many times more the file holds."""

    tokens: int = 0
    supervised: int = 0
    documents: int = 0
    factor: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a sample of one data section's rows shows: their format and columns; about how many; the longest, in tokens.

    `objective` is one that learns from such rows.
    """

    format: str
    objective: str
    columns: list[str]
    rows: int
    sampled: int
    longest: int


class FileTokenizer:
    """The tokenizer of a folder as the `tokenizers` library reads it: what encoder and template ask of it, no torch.

    Raises:
        DataError: the folder has no tokenizer.json.
    """

    def __init__(self, folder: str) -> None:
        from tokenizers import Tokenizer

        base = Path(folder).expanduser()
        if not (base / "tokenizer.json").is_file():
            raise DataError(f"{folder}: no tokenizer.json; model.tokenizer (or model.path) needs a folder that has one")
        self.name_or_path = folder
        self.backend_tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
        config = _json(base / "tokenizer_config.json")
        names = {name: _text(config.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        self.special_tokens_map = {name: text for name, text in names.items() if text}
        self.bos_token_id = self._id("bos_token")
        self.eos_token_id = self._id("eos_token")
        self.added_tokens_decoder = {
            number: SimpleNamespace(content=token.content)
            for number, token in self.backend_tokenizer.get_added_tokens_decoder().items()
        }
        jinja = base / "chat_template.jinja"
        own = jinja.read_text(encoding="utf-8") if jinja.is_file() else config.get("chat_template")
        if isinstance(own, list):
            own = {entry["name"]: entry["template"] for entry in own}
        self.chat_template: str | dict[str, str] | None = own

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": self.backend_tokenizer.encode(text).ids}

    def _id(self, name: str) -> int | None:
        text = self.special_tokens_map.get(name)
        return None if text is None else self.backend_tokenizer.token_to_id(text)


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def estimate(
    data: DataSection, objective: str, tokenizer_path: str, files: Sequence[InputFile], *, seed: int, num_places: int = PLACES
) -> Estimate:
    """Returns what the training files of `data` are expected to give, held-out share and weights taken into account.

    Args:
        data: the section.
        objective: name of the objective.
        tokenizer_path: folder with tokenizer.json.
        files: the training files.
        seed: of the sample.
        num_places: places looked at in the files of a source.

    Raises:
        DataError: tokenizer or template cannot be used, or no sampled row can be read.
    """
    reader = _reader(data, objective, tokenizer_path, files)
    trained = 1.0 - (share_of(data.validation) or 0.0)
    sections = data.named_sources()
    tokens = supervised = documents = 0.0
    for number, file in enumerate(files):
        section = sections[file.source]
        places = max(1, num_places // sum(other.source == file.source for other in files))
        draw = random.Random(f"{seed}/{file.source}/{Path(file.path).name}")
        chunks, factor = (
            _by_seeking(file, number, places, draw) if _is_plain(file) else _by_reading(file, number, places, draw)
        )
        found = _look(reader, chunks, file, section.format, dict(section.columns))
        weight = section.weight * trained * factor
        tokens += found.tokens * weight
        supervised += found.supervised * weight
        documents += found.documents * weight
    if not documents:
        raise DataError("data: not one of the sampled rows can be used; `aisc inspect` shows what is wrong with them")
    rows = -(-tokens // (data.sequence_length * _USUAL_FILL)) if data.packing else documents
    return Estimate(round(tokens), round(supervised), max(1, round(rows)))


def look(data: DataSection, tokenizer_path: str) -> Look:
    """Returns what a sample of the rows of `data.train` shows.

    Raises:
        DataError: the file, the tokenizer or the template cannot be used, or the format is not recognised.
    """
    files = find_files("train", str(data.train), online=False)
    draw = random.Random(0)
    sample = _by_seeking if _is_plain(files[0]) else _by_reading
    chunks, factor = sample(files[0], 0, PLACES, draw)
    rows = [row for chunk in chunks for _, row in rows_of(chunk, files[0].kind) if not isinstance(row, RowProblem)]
    form = next((name for row in rows if (name := detect(row, {}))), None)
    if form is None:
        keys = column_names(rows[0]) if rows else "nothing that can be read"
        raise DataError(f"{data.train}: format not recognised ({keys}); expected {expected()}")
    reader = _reader(replace(data, sequence_length=1 << 30), OBJECTIVE_OF.get(form, "sft"), tokenizer_path, files)
    file_format = FileFormat(form, columns_of(form, {}, files[0].source))
    lengths = [n for chunk in chunks for n in _lengths(reader.read(Task(chunk, file_format)))]
    columns = [str(key) for key in rows[0]]
    return Look(form, OBJECTIVE_OF.get(form, "sft"), columns, round(len(rows) * factor), len(rows), max(lengths, default=0))


def _lengths(result: ChunkResult) -> list[int]:
    """Returns the tokens that each row of `result` takes in a packed row."""
    if result.answers is None:
        return [int(n) for n in result.lengths]
    per_item = result.answers.per_item
    own = result.lengths.reshape(-1, per_item).sum(axis=1)
    return [int(n) for n in (own if per_item > 1 else 2 * own)]


def _reader(data: DataSection, objective: str, tokenizer_path: str, files: Sequence[InputFile]) -> Reader:
    tokenizer = FileTokenizer(tokenizer_path)
    source = read_template(data.chat_template)
    has_template = bool(source or tokenizer.chat_template)
    return Reader(
        files=files,
        encoder=Encoder(tokenizer, learn_all=objective == "cpt"),
        template=template_of(tokenizer, dict(data.template_args), source) if has_template else None,
        objective=objective,
        system_prompt=data.system_prompt,
        group_by=None,
        sequence_length=data.sequence_length,
        overlength=data.overlength,
    )


def _look(reader: Reader, chunks: list[Chunk], file: InputFile, form: str, columns: dict[str, str]) -> _Sampled:
    """Returns the sums over the usable documents of `chunks`; rows that `prepare` would refuse count nothing."""
    found = _Sampled()
    for chunk in chunks:
        name = form if form != "auto" else _detected(chunk, file, columns, reader.objective)
        if name is None:
            continue
        check_format(name, reader.objective, file.path)
        if name != "text" and reader.template is None:
            continue
        result = reader.read(Task(chunk, FileFormat(name, columns_of(name, columns, file.source))))
        # An answer with a label is written twice, the second time with another row's completion.
        times = 2 if result.answers is not None and result.answers.per_item == 1 else 1
        found.tokens += len(result.ids) * times
        found.supervised += int(np.count_nonzero(result.mask)) * times
        found.documents += len(result.lengths) // (result.answers.per_item if result.answers is not None else 1)
    return found


def _detected(chunk: Chunk, file: InputFile, columns: dict[str, str], objective: str) -> str | None:
    rows = (row for _, row in rows_of(chunk, file.kind) if not isinstance(row, RowProblem))
    return next((name for row in rows if (name := detect(row, columns, objective))), None)


def _is_plain(file: InputFile) -> bool:
    return file.kind in ("jsonl", "text") and Path(file.path).suffix.lower() not in COMPRESSED


def _by_seeking(file: InputFile, number: int, places: int, draw: random.Random) -> tuple[list[Chunk], float]:
    """Returns whole lines from `places` random places of the file, and its bytes per byte read.

    One place is drawn in each of `places` equal parts of the file; reading starts at the next line and ends with the
    line that fills the budget.
    """
    size = Path(file.path).stat().st_size
    chunks: list[Chunk] = []
    with open(file.path, "rb") as stream:
        if size <= places * _PLACE_BYTES:
            content = stream.read()
            return [Chunk(number, 1, content.removeprefix(b"\xef\xbb\xbf"), num_bytes=len(content))], 1.0
        for place in range(places):
            start = draw.randrange(size * place // places, size * (place + 1) // places)
            stream.seek(start)
            stream.readline()
            payload = stream.read(_PLACE_BYTES) + stream.readline()
            if payload:
                chunks.append(Chunk(number, 1, payload, num_bytes=len(payload)))
    return chunks, size / max(1, sum(chunk.num_bytes for chunk in chunks))


def _by_reading(file: InputFile, number: int, places: int, draw: random.Random) -> tuple[list[Chunk], float]:
    """Returns some rows of `places` random chunks of the file, and its rows per row returned."""
    kept: list[Chunk] = []
    rows = seen = 0
    for chunk in read_chunks(file, number):
        if isinstance(chunk, tuple):
            continue
        rows += _num_rows(chunk)
        seen += 1
        # A reservoir: every chunk is kept with the same probability.
        if len(kept) < places:
            kept.append(chunk)
        elif (slot := draw.randrange(seen)) < places:
            kept[slot] = chunk
    per_chunk = _PLACE_ROWS * max(1, places // max(1, len(kept)))
    chosen = [_some(chunk, per_chunk, draw) for chunk in kept]
    return chosen, rows / max(1, sum(map(_num_rows, chosen)))


def _num_rows(chunk: Chunk) -> int:
    if isinstance(chunk.payload, bytes):
        return sum(1 for line in chunk.payload.split(b"\n") if line.strip())
    return int(chunk.payload.num_rows) if isinstance(chunk.payload, pa.RecordBatch) else len(chunk.payload)


def _some(chunk: Chunk, count: int, draw: random.Random) -> Chunk:
    """Returns `count` random rows of the chunk, in order."""
    if isinstance(chunk.payload, bytes):
        lines = [line for line in chunk.payload.split(b"\n") if line.strip()]
        return Chunk(chunk.file, 1, b"\n".join(_pick(lines, count, draw)))
    if isinstance(chunk.payload, pa.RecordBatch):
        picked = _pick(range(chunk.payload.num_rows), count, draw)
        return Chunk(chunk.file, 1, chunk.payload.take(pa.array(picked, pa.int64())))
    picked = _pick(range(len(chunk.payload)), count, draw)
    return Chunk(chunk.file, 1, [chunk.payload[i] for i in picked], [chunk.positions[i] for i in picked])


def _pick(values: Sequence[Any], count: int, draw: random.Random) -> list[Any]:
    chosen = sorted(draw.sample(range(len(values)), min(count, len(values))))
    return [values[i] for i in chosen]
