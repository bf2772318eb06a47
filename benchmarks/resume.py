"""Continuing at a far position beside skipping batches.    python -m benchmarks.resume [--documents N] [--no-record]

From nothing in memory (store opened, order and loader made) to this rank's first window of position 10,000,000, wall
time. Beside it: `accelerate.skip_first_batches` over a shuffled sampler of as many rows, at 100,000 positions only; its
cost grows with the position, so the figure for 10,000,000 is that one times 100.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import skip_first_batches
from torch.utils.data import DataLoader

from benchmarks.evidence import record
from benchmarks.reading import PAD, write_rows
from benchmarks.screen import show, verdict
from data_pipelines.index import Store
from data_pipelines.loader import Loader
from data_pipelines.order import Order

PREDICTION = {"seconds": 0.1}
COVERS = ["data_pipelines/order.py", "data_pipelines/loader.py", "data_pipelines/index.py", "benchmarks/resume.py"]
POSITION = 10_000_000
REFERENCE_POSITION = 100_000
GLOBAL_BATCH_SIZE = 32


def ours(folder: Path, position: int) -> float:
    """Returns the seconds until the window of `position` is there."""
    began = time.perf_counter()
    store = Store(folder)
    order = Order(num_rows=store.num_rows, fingerprint=store.fingerprint, seed=0, global_batch_size=GLOBAL_BATCH_SIZE)
    loader = Loader(
        store, order, dp_rank=0, dp_size=4, micro_batch_size=4, pad_token_id=PAD, device=torch.device("cpu")
    )
    window = loader.window(position)
    seconds = time.perf_counter() - began
    loader.close()
    assert len(window) == GLOBAL_BATCH_SIZE // 16
    return seconds


def skipping(position: int) -> float:
    """Returns the seconds in which `skip_first_batches` reaches `position`; its rows are numbers, read for nothing."""
    numbers = range((position + 1) * GLOBAL_BATCH_SIZE)
    loader: DataLoader[int] = DataLoader(numbers, batch_size=GLOBAL_BATCH_SIZE, shuffle=True)  # type: ignore[arg-type]
    began = time.perf_counter()
    next(iter(skip_first_batches(loader, position)))
    return time.perf_counter() - began


def measure(documents: int) -> dict[str, Any]:
    """Returns prediction, measurements, and the ratio to skipping."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        write_rows(folder, documents)
        far = max(ours(folder, POSITION) for _ in range(5))
        start = max(ours(folder, 0) for _ in range(5))
    reference = skipping(REFERENCE_POSITION)
    extrapolated = reference * POSITION / REFERENCE_POSITION
    return {
        "result": verdict(far <= PREDICTION["seconds"], f"{far * 1000:.1f} ms at position {POSITION:,}"),
        "documents": documents,
        "prediction": PREDICTION,
        "measured": [
            {"name": "aisc", "position": POSITION, "seconds": far},
            {"name": "aisc", "position": 0, "seconds": start},
            {"name": "skip_first_batches", "position": REFERENCE_POSITION, "seconds": reference},
            {"name": "skip_first_batches, extrapolated", "position": POSITION, "seconds": extrapolated},
        ],
        "ratio": {"far_to_start": far / start, "to_skipping": far / extrapolated},
    }


def main() -> None:
    """Runs the benchmark and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--no-record", action="store_true", help="show only, leave docs/evidence as it is")
    arguments = parser.parse_args()
    result = measure(arguments.documents)
    show("resume", result)
    if not arguments.no_record:
        record("resume", covers=COVERS, result=result.pop("result"), counts=result, seed=0)


if __name__ == "__main__":
    main()
