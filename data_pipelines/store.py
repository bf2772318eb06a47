"""Writing a store: documents arrive in input order, are packed, and land on disk row after row.

A prepared folder is built once, under a temporary name, and published by rename; see `index.py` for the columns.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.atomic import publish_folder, sha256_file, temporary_folder
from data_pipelines.index import COLUMNS, META_NAME, SCHEMA_VERSION
from data_pipelines.packing import one_per_row, pack

# A claim whose heartbeat is older than this belongs to a dead builder.
STALE_CLAIM_S = 30.0
_HEARTBEAT_S = 5.0
_GATHER_DOCUMENTS = 65_536


@dataclass(slots=True)
class Document:
    """One tokenised document.

    Attributes:
        ids: token ids, `[n]`.
        mask: True where the token is learned, `[n]`.
        source: index into the store's sources.
        group: hash of the group that the split keeps together.
        row: line or row number in the input, from 1.
    """

    ids: NDArray[np.uint32]
    mask: NDArray[np.bool_]
    source: int
    group: int
    row: int


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
        self, folder: Path, *, fingerprint: str, sequence_length: int, sources: Sequence[str], vocab_size: int, packing: bool
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
        self._spool = (folder / "spool").open("wb")
        self._lengths: list[NDArray[np.int64]] = []
        self._document_columns: list[NDArray[np.int64]] = []
        self._items: list[NDArray[np.int64]] = []

    def add_item(self, documents: Sequence[Document]) -> None:
        """Adds documents that must share a row."""
        self._add(
            np.concatenate([document.ids for document in documents]),
            np.concatenate([document.mask for document in documents]),
            np.array([len(document.ids) for document in documents]),
            np.array([(d.source, d.group, d.row) for d in documents], dtype=np.int64),
            np.array([len(documents)]),
        )

    def add_many(
        self,
        ids: NDArray[np.uint32],
        mask: NDArray[np.bool_],
        lengths: NDArray[np.int64],
        *,
        source: NDArray[np.int64],
        group: NDArray[np.int64],
        row: NDArray[np.int64],
    ) -> None:
        """Adds `len(lengths)` single-document items whose tokens follow one another in `ids` and `mask`."""
        columns = np.stack([source, group, row], axis=1).astype(np.int64)
        self._add(ids, mask, lengths, columns, np.ones(len(lengths), np.int64))

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
        # One spool word per token: the id in the high bits, the label bit lowest.
        self._spool.write(((ids.astype(np.uint64) << np.uint64(1)) | mask.astype(np.uint64)).astype(np.uint64).tobytes())
        self._lengths.append(lengths)
        self._document_columns.append(columns)
        self._items.append(item_sizes.astype(np.int64))

    def finish(self, account: dict[str, Any] | None = None) -> None:
        """Packs and writes every column, then the description with sizes and hashes."""
        self._spool.close()
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        columns = np.concatenate(self._document_columns) if self._document_columns else np.zeros((0, 3), np.int64)
        item_sizes = np.concatenate(self._items) if self._items else np.zeros(0, np.int64)
        order, row_offsets = self._pack(lengths, item_sizes)
        sorted_lengths = lengths[order]
        offsets = np.zeros(len(order) + 1, np.int64)
        np.cumsum(sorted_lengths, out=offsets[1:])
        targets = self._write_tokens(lengths, order, offsets)
        np.save(self._folder / "document_offsets.npy", offsets)
        np.save(self._folder / "row_offsets.npy", row_offsets)
        np.save(self._folder / "document_source.npy", columns[order, 0].astype(np.uint16))
        np.save(self._folder / "document_group.npy", columns[order, 1])
        np.save(self._folder / "document_row.npy", columns[order, 2])
        np.save(self._folder / "document_targets.npy", targets)
        (self._folder / "spool").unlink()
        self._meta["supervised"] = int(targets.sum())
        self._meta["account"] = account or {}
        self._meta["files"] = {
            f"{name}.npy": {
                "bytes": (self._folder / f"{name}.npy").stat().st_size,
                "sha256": sha256_file(self._folder / f"{name}.npy"),
            }
            for name in COLUMNS
        }
        (self._folder / META_NAME).write_text(json.dumps(self._meta, indent=1, ensure_ascii=False), encoding="utf-8")

    def _pack(self, lengths: NDArray[np.int64], item_sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
        """Gathers the spooled tokens in row order; returns the learned tokens of each document."""
        total = int(offsets[-1])
        spool_path = self._folder / "spool"
        spool = np.fromfile(spool_path, np.uint64) if total < 1 << 24 else np.memmap(spool_path, np.uint64, "r")
        ids = np.lib.format.open_memmap(self._folder / "ids.npy", "w+", self._dtype, (total,))
        mask = np.lib.format.open_memmap(self._folder / "mask.npy", "w+", np.bool_, (total,))
        starts = np.cumsum(lengths) - lengths
        targets = np.zeros(len(order), np.int32)
        for begin in range(0, len(order), _GATHER_DOCUMENTS):
            chunk = order[begin : begin + _GATHER_DOCUMENTS]
            words = spool[_ranges(starts[chunk], lengths[chunk])]
            first, last = int(offsets[begin]), int(offsets[begin + len(chunk)])
            ids[first:last] = words >> np.uint64(1)
            learned = (words & np.uint64(1)).astype(np.bool_)
            mask[first:last] = learned
            targets[begin : begin + len(chunk)] = np.add.reduceat(
                learned.astype(np.int32), offsets[begin : begin + len(chunk)] - first
            )
        ids.flush()
        mask.flush()
        return targets


def _ranges(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the concatenation of `arange(start, start + size)`."""
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(total)


def build_once(final: Path, builder: Callable[[Path], None], *, on_wait: Callable[[float], None] | None = None) -> bool:
    """Makes sure that the prepared folder `final` exists, built by one process only.

    The claim `final + ".claim"` (mkdir, heartbeat by its modification time) only saves work: two builders are harmless,
    the later rename loses and deletes its own.

    Args:
        final: folder to build.
        builder: fills the temporary folder that it is given.
        on_wait: called about once a second with the seconds waited for another builder.

    Returns:
        True when this process built it.
    """
    final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    claim = final.with_name(final.name + ".claim")
    started = time.monotonic()
    while not final.is_dir():
        if _take_claim(claim):
            with _heartbeat(claim), temporary_folder(final) as temporary:
                if final.is_dir():
                    return False
                builder(temporary)
                return publish_folder(temporary, final)
        time.sleep(0.2)
        if on_wait:
            on_wait(time.monotonic() - started)
    return False


def _take_claim(claim: Path) -> bool:
    """Takes the claim by mkdir; removes one whose builder is dead so that the next try can take it."""
    try:
        claim.mkdir(mode=0o700)
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - claim.stat().st_mtime > STALE_CLAIM_S:
                claim.rmdir()
        return False
    return True


@contextlib.contextmanager
def _heartbeat(claim: Path) -> Iterator[None]:
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_HEARTBEAT_S):
            with contextlib.suppress(FileNotFoundError):
                os.utime(claim)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(FileNotFoundError):
            claim.rmdir()


