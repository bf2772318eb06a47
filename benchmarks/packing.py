"""Packing beside TRL's `bfd` on the same lengths.    python -m benchmarks.packing [--documents N] [--no-record]

Lengths: log-normal, median 300, sigma 1, cut at 4,096, seed 0. Ours is timed from the array of lengths to the rows; TRL's
as its users call it, `pack_dataset` on one byte per token, so it moves the tokens too. CPU seconds of one process.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence import record
from benchmarks.screen import show, verdict
from data_pipelines.corpora.packages import fetch
from data_pipelines.packing import pack

CAPACITY = 4096
PREDICTION = {"fill": 0.999, "documents_per_s": 1_000_000}
COVERS = ["data_pipelines/packing.py", "benchmarks/packing.py"]


def log_normal_lengths(documents: int) -> NDArray[np.int64]:
    """Returns the lengths of the issue's list, `[documents]`."""
    lengths = np.random.default_rng(0).lognormal(np.log(300), 1, documents).clip(1, CAPACITY)
    return lengths.astype(np.int64)


def ours(lengths: NDArray[np.int64], repeats: int = 3) -> dict[str, Any]:
    """Returns rows, fill and the slowest of a few rates."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        packing = pack(lengths, CAPACITY)
        seconds.append(time.process_time() - began)
    totals = np.add.reduceat(lengths[packing.items], packing.offsets[:-1])
    assert totals.max() <= CAPACITY
    assert (np.bincount(packing.items, minlength=len(lengths)) == 1).all()
    return _measured("aisc", lengths, packing.num_rows, max(seconds))


def trl(lengths: NDArray[np.int64], *, whole: bool) -> dict[str, Any]:
    """Returns the same for `trl.data_utils.pack_dataset`; `whole` packs all documents at once, not 1,000 at a time."""
    import pyarrow as pa
    from datasets import Dataset, disable_progress_bars
    # The reference is read from its unpacked wheel: it is no dependency of ours.
    sys.path.append(str(fetch("trl", Path(".cache/packages"))))
    from trl.data_utils import pack_dataset

    disable_progress_bars()
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.zeros(offsets[-1], np.int8)))
    dataset = Dataset(pa.table({"input_ids": tokens}))
    began = time.process_time()
    packed = pack_dataset(dataset, CAPACITY, "bfd", {"batch_size": len(lengths)} if whole else None)
    seconds = time.process_time() - began
    name = "trl bfd, all at once" if whole else "trl bfd, its default (1,000 at a time)"
    return _measured(name, lengths, len(packed), seconds)


def _measured(name: str, lengths: NDArray[np.int64], rows: int, seconds: float) -> dict[str, Any]:
    fill = float(lengths.sum() / (rows * CAPACITY))
    return {"name": name, "rows": rows, "fill": fill, "documents_per_s": len(lengths) / seconds}


def measure(documents: int) -> dict[str, Any]:
    """Returns prediction, measurements, and the ratio against TRL's better row."""
    lengths = log_normal_lengths(documents)
    table = [ours(lengths), trl(lengths, whole=False), trl(lengths, whole=True)]
    mine, theirs = table[0], table[1:]
    fill, rate = mine["fill"], mine["documents_per_s"]
    best = max(row["fill"] for row in theirs)
    holds = fill >= PREDICTION["fill"] and rate >= PREDICTION["documents_per_s"] and fill >= best
    return {
        "result": verdict(holds, f"{fill:.3%} full (TRL {best:.3%}), {rate / 1e6:.1f} M documents/s per core"),
        "documents": documents,
        "prediction": PREDICTION,
        "measured": table,
        "ratio": {
            "rate_to_fastest_trl": rate / max(row["documents_per_s"] for row in theirs),
            "rows_to_fewest_trl": mine["rows"] / min(row["rows"] for row in theirs),
        },
    }


def main() -> None:
    """Runs the benchmark and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--no-record", action="store_true", help="show only, leave docs/evidence as it is")
    arguments = parser.parse_args()
    result = measure(arguments.documents)
    show("packing", result)
    if not arguments.no_record:
        record("packing", covers=COVERS, result=result.pop("result"), counts=result, seed=0)


if __name__ == "__main__":
    main()
