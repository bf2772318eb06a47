"""Reading a finished store without torch: columns are memory-mapped, rows are contiguous on disk.

A prepared folder is `<stores>/<fingerprint>/` with the parts `train/` and, when there is held-out data, `validation/`.
Columns of a part (numpy .npy files; D documents numbered in row order, R rows, S tokens in all):

    ids [S] uint16 or uint32      token ids, row after row
    mask [S] bool                 True where the token is learned; False at the first token of every document
    document_offsets [D+1] int64  where each document starts in `ids`
    row_offsets [R+1] int64       which documents make up each row
    document_source [D] uint16    index into `sources`
    document_group [D] int64      hash of the group that the split kept together
    document_row [D] int64        line or row number in the input, from 1
    document_targets [D] int32    number of learned tokens

and, where documents have roles (`roles.py`), documents of one item stand one after the other in a row:

    document_role [D] uint8       a `Role`
    document_margin [D] float32   by how much a chosen answer is better than the rejected one; 0: not given
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.atomic import sha256_file
from configs.errors import DataError
from configs.schema import DataSection

META_NAME = "store.json"
# Bytes of inputs that a quick count hashes (about a second), and places of the inputs that it looks at.
HASHED_QUICKLY = 500_000_000
QUICK_PLACES = 16
SCHEMA_VERSION = 1
COLUMNS = (
    "ids",
    "mask",
    "document_offsets",
    "row_offsets",
    "document_source",
    "document_group",
    "document_row",
    "document_targets",
)
ROLE_COLUMNS = ("document_role", "document_margin")
_META_KEYS = ("fingerprint", "sequence_length", "sources", "supervised", "account", "files")

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Row:
    """One packed row: `ids` and `mask` `[n]` with n at most `sequence_length`; document numbers and their starts."""

    ids: NDArray[np.integer]
    mask: NDArray[np.bool_]
    documents: Int64
    starts: Int64


class Store:
    """One part (training or held-out) of a prepared folder, opened for reading.

    Raises:
        DataError: a column is missing, has another size than the one recorded, or its boundaries make no sense.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.meta: dict[str, Any] = _read_meta(self.folder)
        columns = {name: _open_column(self.folder, name, self.meta) for name in COLUMNS}
        self.ids = columns["ids"]
        self.mask = columns["mask"]
        self.document_offsets = columns["document_offsets"]
        self.row_offsets = columns["row_offsets"]
        self.document_source = columns["document_source"]
        self.document_group = columns["document_group"]
        self.document_row = columns["document_row"]
        self.document_targets = columns["document_targets"]
        # None in a store without roles.
        self.document_role: NDArray[np.uint8] | None = None
        self.document_margin: NDArray[np.float32] | None = None
        if "document_role.npy" in self.meta["files"]:
            self.document_role, self.document_margin = (_open_column(self.folder, n, self.meta) for n in ROLE_COLUMNS)
        self.num_documents = len(self.document_source)
        _check_boundaries(self.folder / "row_offsets.npy", self.row_offsets, self.num_documents)
        _check_boundaries(self.folder / "document_offsets.npy", self.document_offsets, len(self.ids))
        self.sources: list[str] = self.meta["sources"]
        self.sequence_length: int = self.meta["sequence_length"]
        self.fingerprint: str = self.meta["fingerprint"]
        self.num_rows = len(self.row_offsets) - 1
        self.tokens = int(self.document_offsets[-1])
        self.supervised = int(self.meta["supervised"])
        # Tokens of each row, padding left out; [R] int64.
        self.row_tokens: Int64 = np.diff(self.document_offsets[self.row_offsets])

    def row(self, number: int) -> Row:
        """Returns row `number` as views of the memory map."""
        first, last = int(self.row_offsets[number]), int(self.row_offsets[number + 1])
        starts = self.document_offsets[first : last + 1]
        begin, end = int(starts[0]), int(starts[-1])
        return Row(self.ids[begin:end], self.mask[begin:end], np.arange(first, last), starts[:-1] - begin)

    def row_documents(self, number: int) -> Int64:
        """Returns the document numbers of row `number`."""
        return np.arange(int(self.row_offsets[number]), int(self.row_offsets[number + 1]))

    def document(self, number: int) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        """Returns (ids, mask) of document `number`."""
        begin, end = (int(self.document_offsets[number]), int(self.document_offsets[number + 1]))
        return self.ids[begin:end], self.mask[begin:end]

    def origin(self, document: int) -> tuple[str, int]:
        """Returns (source name, line or row number from 1) of document `document`."""
        return self.sources[int(self.document_source[document])], int(self.document_row[document])

    @property
    def fill(self) -> float:
        """Share of the rows' positions that hold a token, 0 to 1."""
        return self.tokens / max(1, self.num_rows * self.sequence_length)

    def verify(self) -> None:
        """Reads every column and compares its hash; raises DataError naming the first that differs."""
        for name, recorded in self.meta["files"].items():
            path = self.folder / name
            if sha256_file(path) != recorded["sha256"]:
                raise DataError(f"{path}: its bytes changed since it was built; delete {self.folder.parent} to rebuild")


def open_part(prepared: Path, part: str) -> Store | None:
    """Returns the part `train` or `validation` of a prepared folder; None when it has no such part."""
    folder = prepared / part
    return Store(folder) if folder.is_dir() else None


@dataclass(frozen=True, slots=True)
class Count:
    """What training reads in one epoch; `exact` is False for an estimate from a sample, to be shown as one.

    Attributes:
        tokens: padding left out; supervised: those that are learned.
        rows: packed rows of `sequence_length`.
    """

    tokens: int
    supervised: int
    rows: int
    exact: bool


def count(data: DataSection, objective: str, tokenizer_path: str, *, seed: int, is_quick: bool = False) -> Count:
    """Returns the size of the training part: from the store when it is built, else estimated from a sample of rows.

    Needs no torch and builds nothing. The inputs' bytes are hashed only where some store exists that could be theirs;
    with `is_quick` only up to HASHED_QUICKLY, and a third of the sample is looked at.

    Raises:
        DataError: sources, tokenizer or template cannot be used.
    """
    from data_pipelines import build
    from data_pipelines.estimate import PLACES, estimate

    inputs = build.find_inputs(data)
    small = not is_quick or sum(path.stat().st_size for path in inputs.paths) <= HASHED_QUICKLY
    if small and any(build.stores_dir(data.store).glob("*/train")):
        name, _ = build.identify(data, objective, tokenizer_path, inputs, seed=seed)
        if store := open_part(build.folder_of(data, name), "train"):
            return Count(store.tokens, store.supervised, store.num_rows, exact=True)
    files = inputs.files[: inputs.held_out_from]
    found = estimate(data, objective, tokenizer_path, files, seed=seed, num_places=QUICK_PLACES if is_quick else PLACES)
    return Count(found.tokens, found.supervised, found.rows, exact=False)


def find_prepared(
    data: DataSection, objective: str, tokenizer_path: str, *, seed: int, most_bytes: int | None = None
) -> Path | None:
    """Returns the prepared folder of this section; None when it is not built, or when that is too much to look up.

    Args:
        data: the section; objective: sft or cpt; tokenizer_path: folder of the tokenizer; seed: of the split.
        most_bytes: inputs larger than this are not hashed for it: preparing again finds the finished store by itself.
    """
    from data_pipelines import build

    if not any(build.stores_dir(data.store).glob("*/train")):
        return None
    inputs = build.find_inputs(data)
    if most_bytes is not None and sum(path.stat().st_size for path in inputs.paths) > most_bytes:
        return None
    name, _ = build.identify(data, objective, tokenizer_path, inputs, seed=seed)
    folder = build.folder_of(data, name)
    return folder if (folder / "train").is_dir() else None


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / META_NAME
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable store ({error}); delete {folder.parent} to rebuild") from error
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA_VERSION:
        raise DataError(f"{path}: not a store of format {SCHEMA_VERSION}; delete {folder.parent} to rebuild")
    if missing := [key for key in _META_KEYS if key not in meta]:
        raise DataError(f"{path}: {', '.join(missing)} missing; delete {folder.parent} to rebuild")
    return meta


def _check_boundaries(path: Path, offsets: NDArray[Any], end: int) -> None:
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) <= 0).any():
        raise DataError(f"{path}: its bytes changed since it was built; delete {path.parent.parent} to rebuild")


def _open_column(folder: Path, name: str, meta: dict[str, Any]) -> NDArray[Any]:
    path = folder / f"{name}.npy"
    recorded = meta["files"][path.name]["bytes"]
    found = path.stat().st_size if path.is_file() else None
    if found != recorded:
        size = "missing" if found is None else f"{found} bytes"
        raise DataError(f"{path}: {size}, expected {recorded} bytes; delete {folder.parent} to rebuild")
    column = np.load(path, mmap_mode="r", allow_pickle=False)
    # A plain array over the same pages: numpy's memmap subclass makes every small slice several times slower.
    return np.asarray(column)
