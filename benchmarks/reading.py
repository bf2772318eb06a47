"""Reading packed rows to arrays beside `datasets`.    python -m benchmarks.reading [--documents N] [--no-record]

Rows of 4,096 tokens of documents of about 300 (the lengths of benchmarks/packing.py) are read in the order of a run,
four at a time, to ids, labels, positions (int64, `[4, 4096]`) and document boundaries. Beside it: the same rows as a
memory-mapped `datasets` folder with numpy columns, positions from its `seq_lengths`, which is how TRL keeps them; and
one bare numpy copy of the ids from the memory map, which nothing can beat. CPU seconds of one process, pages in memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence import record
from benchmarks.packing import CAPACITY, log_normal_lengths
from benchmarks.screen import show, verdict
from data_pipelines.collate import IGNORED, Arrays, collate, read_rows
from data_pipelines.index import Store
from data_pipelines.order import Order
from data_pipelines.store import StoreWriter

PREDICTION = {"tokens_per_s": 150_000_000}
COVERS = [
    "data_pipelines/collate.py",
    "data_pipelines/index.py",
    "data_pipelines/order.py",
    "data_pipelines/store.py",
    "benchmarks/reading.py",
]
VOCAB_SIZE = 50_000
ROWS_AT_ONCE = 4
PAD = 0
Rows = NDArray[np.int64]


def write_rows(folder: Path, documents: int) -> Store:
    """Writes random tokens of log-normal lengths, 40 % of them learned."""
    rng = np.random.default_rng(1)
    lengths = log_normal_lengths(documents)
    writer = StoreWriter(
        folder,
        fingerprint="reading",
        sequence_length=CAPACITY,
        sources=["random"],
        vocab_size=VOCAB_SIZE,
        packing=True,
    )
    for begin in range(0, documents, 1000):
        part = lengths[begin : begin + 1000]
        ids = rng.integers(0, VOCAB_SIZE, part.sum()).astype(np.uint32)
        number = np.arange(begin, begin + len(part))
        writer.add_many(
            ids, rng.random(len(ids)) < 0.4, part, source=np.zeros(len(part), np.int64), group=number, row=number
        )
    writer.finish()
    return Store(folder)


def as_datasets(store: Store, folder: Path) -> Any:
    """Returns the same rows as a saved and re-opened `datasets` folder: ids, labels and lengths of documents."""
    from datasets import Dataset, disable_progress_bars, load_from_disk

    disable_progress_bars()

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(store.num_rows):
            row = store.row(number)
            ids = row.ids.astype(np.int64)
            yield {
                "input_ids": ids,
                "labels": np.where(row.mask, ids, IGNORED),
                "seq_lengths": np.diff([*row.starts, len(row.ids)]),
            }

    Dataset.from_generator(rows, cache_dir=str(folder / "cache")).save_to_disk(str(folder / "rows"))
    return load_from_disk(str(folder / "rows")).with_format("numpy")


def read_datasets(dataset: Any, rows: Rows) -> Arrays:
    """Returns what `read_rows` returns, from the `datasets` folder."""
    ids = np.full((len(rows), CAPACITY), PAD, np.int64)
    labels = np.full((len(rows), CAPACITY), IGNORED, np.int64)
    positions = np.zeros((len(rows), CAPACITY), np.int64)
    bounds: list[Rows] = []
    columns = dataset[rows]
    for place in range(len(rows)):
        used = len(columns["input_ids"][place])
        ids[place, :used] = columns["input_ids"][place]
        labels[place, :used] = columns["labels"][place]
        lengths = columns["seq_lengths"][place]
        positions[place, :used] = np.concatenate([np.arange(length) for length in lengths])
        positions[place, used:] = np.arange(CAPACITY - used)
        tail = [] if used == CAPACITY else [used]
        bounds.append(np.concatenate([np.cumsum(lengths) - lengths, tail]).astype(np.int64) + place * CAPACITY)
    bounds.append(np.array([len(rows) * CAPACITY]))
    return Arrays(ids, labels, positions, np.concatenate(bounds).astype(np.int32), np.zeros(0, np.int64))


def rate(read: Callable[[Rows], object], groups: list[Rows], repeats: int = 3) -> float:
    """Returns the slowest of a few rates of `read` over `groups`, in tokens (padding included) a CPU second."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        for rows in groups:
            read(rows)
        seconds.append(time.process_time() - began)
    return sum(map(len, groups)) * CAPACITY / max(seconds)


def measure(documents: int) -> dict[str, Any]:
    """Returns prediction, measurements, and ratios against `datasets` and against a bare copy."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = write_rows(folder / "store", documents)
        dataset = as_datasets(store, folder)
        order = Order(num_rows=store.num_rows, fingerprint=store.fingerprint, seed=0, global_batch_size=ROWS_AT_ONCE)
        groups = [order.rows(position) for position in range(store.num_rows // ROWS_AT_ONCE)]
        _assert_equal(read_rows(store, groups[0], PAD), read_datasets(dataset, groups[0]))
        few = groups[: max(1, len(groups) // 10)]
        rates = {
            "aisc, to arrays": rate(lambda rows: read_rows(store, rows, PAD), groups),
            "aisc, to a Batch of tensors": rate(lambda rows: collate(store, rows, PAD), groups),
            "datasets, numpy columns": rate(lambda rows: read_datasets(dataset, rows), few),
            "bare copy of the ids": rate(lambda rows: _copy_ids(store, rows), groups),
        }
        num_rows = store.num_rows
    mine, tensors, theirs, copy = rates.values()
    holds = mine >= PREDICTION["tokens_per_s"]
    return {
        "result": verdict(holds, f"{mine / 1e6:.0f} M tokens/s per core (datasets {theirs / 1e6:.0f} M)"),
        "documents": documents,
        "rows": num_rows,
        "prediction": PREDICTION,
        "measured": [{"name": name, "tokens_per_s": value} for name, value in rates.items()],
        "ratio": {"to_datasets": mine / theirs, "to_bare_copy": mine / copy, "with_tensors": tensors / mine},
    }


def _copy_ids(store: Store, rows: Rows) -> Rows:
    ids = np.empty((len(rows), CAPACITY), np.int64)
    for place, row in enumerate(rows.tolist()):
        begin = int(store.document_offsets[store.row_offsets[row]])
        end = int(store.document_offsets[store.row_offsets[row + 1]])
        ids[place, : end - begin] = store.ids[begin:end]
    return ids


def _assert_equal(ours: Arrays, theirs: Arrays) -> None:
    for name in ("input_ids", "labels", "position_ids", "cu_seqlens"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def main() -> None:
    """Runs the benchmark and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--no-record", action="store_true", help="show only, leave docs/evidence as it is")
    arguments = parser.parse_args()
    result = measure(arguments.documents)
    show("reading", result)
    if not arguments.no_record:
        record("reading", covers=COVERS, result=result.pop("result"), counts=result, seed=0)


if __name__ == "__main__":
    main()
