"""Is there room for what a run will write? Asked before the first step, not found out at the first save. Torch-free."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from configs.atomic import TEMPORARY_PREFIX
from configs.errors import ConfigError
from configs.runfolder import CHECKPOINT_PREFIX, RunFolder
from train.state import Plan

# fp32 tensors in a checkpoint for each trained weight: the weight, and what its optimizer remembers.
TENSORS_PER_WEIGHT = {"adamw": 3, "sgd": 1}
# Index, manifest, random state, headers of a checkpoint; tokenizer and card of an export.
SMALL_FILES_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run writes: bytes of a checkpoint, how many there are at a time, bytes of the exported model."""

    checkpoint_bytes: int
    checkpoints: int
    export_bytes: int

    @property
    def total_bytes(self) -> int:
        """Most bytes that lie on the disk at one time."""
        return self.checkpoints * self.checkpoint_bytes + self.export_bytes


def needs_of(plan: Plan, *, trained: int, optimizer: str, keep: int, evaluates: bool, export_bytes: int) -> Needs:
    """Returns what a run will write.

    Args:
        plan: when it saves and evaluates.
        trained: number of weights that are trained.
        optimizer: its name.
        keep: newest checkpoints that stay.
        evaluates: there is held-out data, so that the best checkpoint stays too.
        export_bytes: weights of the exported model.
    """
    size = 4 * trained * TENSORS_PER_WEIGHT[optimizer] + SMALL_FILES_BYTES
    # Old ones go only when the new one is published.
    at_most = keep + 1 + evaluates
    saves = -(-plan.total_steps // plan.save_every)
    if evaluates:
        saves += -(-plan.total_steps // plan.evaluate_every)
    return Needs(size, min(at_most, saves), export_bytes + SMALL_FILES_BYTES)


def check_room(run: RunFolder, needs: Needs) -> None:
    """Compares what the run still has to write with what its file system has free. A quota is not seen by this.

    Raises:
        ConfigError: it does not fit; names the folder, what is needed, what is free and what to do.
    """
    existing = min(checkpoint_bytes(run), needs.checkpoints * needs.checkpoint_bytes)
    # However many lie there, the next checkpoint is written before one of them goes.
    missing = max(needs.checkpoint_bytes, needs.checkpoints * needs.checkpoint_bytes - existing) + needs.export_bytes
    place = next(path for path in (run.path, *run.path.absolute().parents) if path.is_dir())
    usage = os.statvfs(place)
    free = usage.f_bavail * usage.f_frsize
    if missing > free:
        raise ConfigError(
            f"run.dir={run.path.parent}: the run will write {spell_bytes(missing)} there ({needs.checkpoints} checkpoints of "
            f"{spell_bytes(needs.checkpoint_bytes)} at a time"
            + (f", {spell_bytes(existing)} of it exist" if existing else "")
            + f", and a model of {spell_bytes(needs.export_bytes)}), {spell_bytes(free)} are free. "
            "Make room, give another place with run.dir=FOLDER, or keep fewer: checkpoint.keep=1" + _left_over(run)
        )


def _left_over(run: RunFolder) -> str:
    """Says how much saves that were killed have left, which the next save that succeeds would remove."""
    pattern = f"attempts/*/checkpoints/{TEMPORARY_PREFIX}*"
    size = sum(size_of(path) for path in run.path.glob(f"{pattern}/*"))
    return f". {spell_bytes(size)} are of saves that were killed and can be deleted: {run.path / pattern}" if size else ""


def checkpoint_bytes(run: RunFolder) -> int:
    """Returns the size of the published checkpoints of all attempts."""
    files = run.path.glob(f"attempts/*/checkpoints/{CHECKPOINT_PREFIX}*/*")
    return sum(size_of(path) for path in files)


def size_of(path: Path) -> int:
    """Returns the size of a file; 0 when another process has just removed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def spell_bytes(count: int) -> str:
    """Returns `115.2 GB`, `16.8 MB`, ... (powers of 1000)."""
    for limit, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if count >= limit:
            return f"{count / limit:,.1f} {unit}"
    return f"{count:,} bytes"
