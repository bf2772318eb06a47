"""The bare loop that others are measured against: forward, backward, optimizer, nothing else.

    python -m benchmarks.bare_loop FOLDER STEPS         a whole bare program, up to STEPS updates; used by overhead.py

FOLDER holds a model (`model/`) and its batches (`batches.npz`: ids, labels). The last line printed is JSON: CPU seconds
of the process up to the end of the first update, resident MiB after the last one. Imports nothing of ours, so that what
our own imports cost is on our side of the comparison.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def update(scores: Any, window: list[Any], optimizer: Any) -> Any:
    """Makes one update of the mean over the window's labelled tokens; returns nothing that a bare loop would not have."""
    count = sum(batch.num_targets for batch in window)
    loss = None
    for batch in window:
        part = -scores(batch).sum() / count
        part.backward()
        loss = part.detach() if loss is None else loss + part.detach()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def resident_mib() -> float:
    """Returns this process's resident memory."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def report(first_step_cpu_s: float) -> None:
    """Prints the last line."""
    print(json.dumps({"cpu_s": first_step_cpu_s, "rss_mib": resident_mib()}), flush=True)


def main(folder: Path, steps: int) -> None:
    """Full fine-tuning of the model in `folder`, as short as it can be written with transformers."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    batches = np.load(folder / "batches.npz", mmap_mode="r")
    ids, labels = torch.from_numpy(batches["ids"]), torch.from_numpy(batches["labels"])
    first_step_cpu_s = 0.0
    for step in range(steps):
        place = step % len(ids)
        model(input_ids=ids[place], labels=labels[place], use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        first_step_cpu_s = first_step_cpu_s or time.process_time()
    report(first_step_cpu_s)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
