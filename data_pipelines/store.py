"""Writing a store: documents arrive in input order, are packed, and land on disk row after row.

A prepared folder is built once, under a temporary name, and published by rename; see `index.py` for the columns.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from configs.atomic import TEMPORARY_PREFIX, publish_folder, remove_folder, sha256_file, temporary_folder, write_json
from configs.errors import DataError
from data_pipelines.index import COLUMNS, META_NAME, ROLE_COLUMNS, SCHEMA_VERSION
from data_pipelines.packing import one_per_row, pack
from data_pipelines.roles import Role

# A claim whose heartbeat is older than this belongs to a dead builder.
STALE_CLAIM_S = 10.0
_HEARTBEAT_S = 2.0
# A temporary folder without a heartbeat for this long is deleted by the next builder.
STALE_TEMPORARY_S = 600.0
# Tokens held in memory before they are spooled, and gathered at once from the spool: 16 MB of 4 bytes.
_CHUNK_TOKENS = 1 << 22


@dataclass(slots=True)
class Document:
    """One tokenised document.

    Attributes:
        ids: token ids, `[n]`.
        mask: True where the token is learned, `[n]`.
        source: index into the store's sources.
        group: hash of the group that the split keeps together.
        row: line or row number in the input, from 1.
        role: what it is to a preference objective; margin: by how much a chosen answer is better.
    """

    ids: NDArray[np.uint32]
    mask: NDArray[np.bool_]
    source: int
    group: int
    row: int
    role: int = Role.PLAIN
    margin: float = 0.0


class StoreWriter:
    """Collects documents into `folder` and writes the columns of one part at `finish`.

    Args:
        folder: an existing folder of the caller's, not yet visible to readers.
        fingerprint: of the prepared folder.
        sequence_length: capacity of a row in tokens.
        sources: names that `Document.source` indexes.
        vocab_size: ids are stored in 16 bits when it allows.
        packing: False puts every item in a row of its own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        sequence_length: int,
        sources: Sequence[str],
        vocab_size: int,
        packing: bool,
    ) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._meta: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "fingerprint": fingerprint,
            "sequence_length": sequence_length,
            "sources": list(sources),
            "vocab_size": vocab_size,
        }
        self._packing = packing
        self._dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        self._waiting: list[NDArray[np.uint32]] = []
        self._num_waiting = 0
        self._lengths: list[NDArray[np.int64]] = []
        self._document_columns: list[NDArray[np.int64]] = []
        self._items: list[NDArray[np.int64]] = []
        self._roles: list[NDArray[np.uint8]] = []
        self._margins: list[NDArray[np.float32]] = []

    def add_item(self, documents: Sequence[Document]) -> None:
        """Adds documents that must share a row."""
        self._add(
            np.concatenate([document.ids for document in documents]),
            np.concatenate([document.mask for document in documents]),
            np.array([len(document.ids) for document in documents]),
            np.array([(d.source, d.group, d.row) for d in documents], dtype=np.int64),
            np.array([len(documents)]),
        )
        if any(document.role != Role.PLAIN for document in documents):
            self._roles.append(np.array([document.role for document in documents], np.uint8))
            self._margins.append(np.array([document.margin for document in documents], np.float32))

    def add_many(
        self,
        ids: NDArray[np.uint32],
        mask: NDArray[np.bool_],
        lengths: NDArray[np.int64],
        *,
        source: NDArray[np.int64],
        group: NDArray[np.int64],
        row: NDArray[np.int64],
        role: NDArray[np.uint8] | None = None,
        margin: NDArray[np.float32] | None = None,
    ) -> None:
        """Adds `len(lengths)` documents whose tokens follow one another in `ids` and `mask`.

        Each is an item of its own; with `role` and `margin` an item is two of them, as answers to one prompt are.
        """
        per_item = 1 if role is None else 2
        columns = np.stack([source, group, row], axis=1).astype(np.int64)
        self._add(ids, mask, lengths, columns, np.full(len(lengths) // per_item, per_item, np.int64))
        if role is not None and margin is not None:
            self._roles.append(role.astype(np.uint8))
            self._margins.append(margin.astype(np.float32))

    def _add(
        self,
        ids: NDArray[Any],
        mask: NDArray[Any],
        lengths: NDArray[Any],
        columns: NDArray[np.int64],
        item_sizes: NDArray[Any],
    ) -> None:
        if not len(lengths):
            return
        lengths = lengths.astype(np.int64)
        mask = mask.astype(np.bool_)  # a copy: the caller's array stays as it is
        # Nothing predicts a document's first token: its neighbour in the row is another document.
        mask[np.cumsum(lengths) - lengths] = False
        # Tokenizers with holes have ids above their size; what does not fit the type must not wrap around.
        if int(ids.max()) > np.iinfo(self._dtype).max:
            raise ValueError(f"token id {ids.max()} in a vocabulary of {self._meta['vocab_size']}")
        # One word per token: the id in the high bits, the label bit lowest.
        self._waiting.append((ids.astype(np.uint32) << np.uint32(1)) | mask)
        self._num_waiting += len(ids)
        if self._num_waiting >= _CHUNK_TOKENS:
            self._spool()
        self._lengths.append(lengths)
        self._document_columns.append(columns)
        self._items.append(item_sizes.astype(np.int64))

    def _spool(self) -> None:
        with open(self._folder / "spool", "ab", opener=_private) as file:
            file.writelines(words.data for words in self._waiting)
        self._waiting.clear()
        self._num_waiting = 0

    def finish(self, account: dict[str, Any] | None = None) -> None:
        """Packs and writes every column, then the description with sizes and hashes; `account` is kept in it."""
        self._spool()
        lengths = _joined(self._lengths, np.zeros(0, np.int64))
        columns = _joined(self._document_columns, np.zeros((0, 3), np.int64))
        order, row_offsets = self._pack(lengths, _joined(self._items, np.zeros(0, np.int64)))
        offsets = np.zeros(len(order) + 1, np.int64)
        np.cumsum(lengths[order], out=offsets[1:])
        targets = self._write_tokens(lengths, order, offsets)
        (self._folder / "spool").unlink()
        self._write_column("document_offsets", offsets)
        self._write_column("row_offsets", row_offsets)
        self._write_column("document_source", columns[order, 0].astype(np.uint16))
        self._write_column("document_group", columns[order, 1])
        self._write_column("document_row", columns[order, 2])
        self._write_column("document_targets", targets)
        names = list(COLUMNS)
        if self._roles:
            roles, margins = np.concatenate(self._roles), np.concatenate(self._margins)
            if len(roles) != len(order):
                raise ValueError(f"{len(roles)} of {len(order)} documents have a role")
            self._write_column("document_role", roles[order])
            self._write_column("document_margin", margins[order])
            names += ROLE_COLUMNS
        paths = [self._folder / f"{name}.npy" for name in names]
        self._meta |= {
            "documents": len(order),
            "rows": len(row_offsets) - 1,
            "tokens": int(offsets[-1]),
            "supervised": int(targets.sum()),
            "account": account or {},
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in paths},
        }
        write_json(self._folder / META_NAME, self._meta)

    def _write_column(self, name: str, values: NDArray[Any]) -> None:
        with open(self._folder / f"{name}.npy", "wb", opener=_private) as file:
            np.save(file, values, allow_pickle=False)

    def _pack(
        self, lengths: NDArray[np.int64], item_sizes: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns documents in row order `[D]`, and where each row starts among them `[R + 1]`."""
        if not len(item_sizes):
            return np.zeros(0, np.int64), np.zeros(1, np.int64)
        item_starts = np.cumsum(item_sizes) - item_sizes
        item_lengths = np.add.reduceat(lengths, item_starts)
        capacity = self._meta["sequence_length"]
        packing = pack(item_lengths, capacity) if self._packing else one_per_row(len(item_lengths))
        sizes = item_sizes[packing.items]
        row_offsets = np.zeros(packing.num_rows + 1, np.int64)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        row_offsets[:] = ends[packing.offsets]
        return _ranges(item_starts[packing.items], sizes), row_offsets

    def _write_tokens(
        self, lengths: NDArray[np.int64], order: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Writes ids and mask in row order, gathered from the spool; returns the learned tokens of each document.

        Plain writes, not a memory map: a full disk must be an error, not a bus error that kills the process.
        """
        spool_path = self._folder / "spool"
        spool = np.memmap(spool_path, np.uint32, "r") if spool_path.stat().st_size else np.zeros(0, np.uint32)
        starts = np.cumsum(lengths) - lengths
        targets = np.zeros(len(order), np.int32)
        with (
            open(self._folder / "ids.npy", "wb", opener=_private) as ids,
            open(self._folder / "mask.npy", "wb", opener=_private) as mask,
        ):
            _write_header(ids, self._dtype, int(offsets[-1]))
            _write_header(mask, np.bool_, int(offsets[-1]))
            begin = 0
            while begin < len(order):
                # At least one document, otherwise as many as fit a chunk.
                end = max(begin + 1, int(np.searchsorted(offsets, offsets[begin] + _CHUNK_TOKENS, "right")) - 1)
                chunk = order[begin:end]
                words = spool[_ranges(starts[chunk], lengths[chunk])]
                learned = (words & np.uint32(1)).astype(np.bool_)
                ids.write((words >> np.uint32(1)).astype(self._dtype).data)
                mask.write(learned.data)
                targets[begin:end] = np.add.reduceat(learned.astype(np.int32), offsets[begin:end] - offsets[begin])
                begin = end
        return targets


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_header(file: BinaryIO, dtype: type[np.generic], length: int) -> None:
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, description)


def _joined(parts: list[NDArray[np.int64]], empty: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else empty


def _ranges(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the concatenation of `arange(start, start + size)`."""
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(total)


def build_once(
    final: Path, builder: Callable[[Path], object], *, on_wait: Callable[[float], None] | None = None
) -> bool:
    """Makes sure that the prepared folder `final` exists, built by one process only.

    The claim `final + ".claim"` (mkdir, heartbeat by its modification time) only saves work: two builders are harmless,
    the later rename loses and deletes its own.

    Args:
        final: folder to build.
        builder: fills the temporary folder that it is given.
        on_wait: called five times a second with the seconds waited for another builder.

    Folders above it that were made for nothing, because the builder refused, are removed again.

    Returns:
        True when this process built it.
    """
    made: list[Path] = []
    try:
        return _build_once(final, builder, on_wait, made)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else has written there
                folder.rmdir()
        raise


def _build_once(final: Path, builder: Callable[[Path], object], on_wait: Callable[[float], None] | None, made: list[Path]) -> bool:
    """As `build_once`; adds the folders above `final` that it makes to `made`, the innermost first."""
    claim = final.with_name(final.name + ".claim")
    started = time.monotonic()
    while not final.is_dir():
        made[:0] = _make_parents(final)  # again and again: another builder that refused may have removed them
        if _take_claim(claim):
            with temporary_folder(final) as temporary, _heartbeat(claim, temporary):
                _delete_abandoned(final)
                # Published between our look and our claim.
                if final.is_dir():
                    return False
                builder(temporary)
                return publish_folder(temporary, final)
        if on_wait:
            on_wait(time.monotonic() - started)
        time.sleep(0.2)
    return False


def _make_parents(final: Path) -> list[Path]:
    """Makes the folder in which `final` lies; returns those that were not there, the innermost first."""
    missing = [folder for folder in final.absolute().parents if not folder.exists()]
    try:
        final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"data.store={final.parent}: cannot be made ({error.strerror}); give another folder") from error
    return missing


def _take_claim(claim: Path) -> bool:
    """Takes the claim by mkdir; removes one whose builder is dead so that the next try can take it."""
    try:
        claim.mkdir(mode=0o700)
    except FileNotFoundError:  # the folder has just been removed
        return False
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - claim.stat().st_mtime > STALE_CLAIM_S:
                claim.rmdir()
        return False
    return True


@contextlib.contextmanager
def _heartbeat(claim: Path, temporary: Path) -> Iterator[None]:
    """Keeps the modification times of both fresh while the body runs, then gives the claim up."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_HEARTBEAT_S):
            for path in (claim, temporary):
                # A successor that took us for dead may have removed either; its build is as good as ours.
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(FileNotFoundError):
            claim.rmdir()


def _delete_abandoned(final: Path) -> None:
    """Deletes temporary folders of `final` whose builders were killed."""
    for folder in final.parent.glob(f"{TEMPORARY_PREFIX}{final.name}-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > STALE_TEMPORARY_S:
                remove_folder(folder)
