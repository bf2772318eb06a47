"""How a checkpoint gets onto the disk and back: whole, verified, or not at all. Torch-free; docs/checkpoints.md.

    attempts/N/checkpoints/step-00000120/
        rank-00000.safetensors ...   each rank's own blocks; of one tensor there may be several
        index.json                   every tensor: dtype, global shape, its blocks (rank, key in its file, offsets, shape)
        state.json                   step, position, ledger head, skip list, best, early stopping
        manifest.json                size and SHA-256 of the files above, and of itself; written last

Written into a temporary folder, every file and folder flushed, then renamed. A process killed at any instant leaves the
old newest checkpoint or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import atomic
from configs.errors import RunFailed
from configs.runfolder import CHECKPOINT_PREFIX, Attempt, Superseded
from train.shard_files import Block, Written, write_bytes, write_safetensors
from train.shard_plan import BlockSpec, make_index, share_blocks

# 2: a rank may hold several blocks of a tensor, and the index has their keys. In format 1 the key was the tensor's name.
FORMAT = 2
READABLE_FORMATS = (1, 2)
MANIFEST = "manifest.json"
INDEX = "index.json"
STATE = "state.json"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This rank's place among those that save together.

    Attributes:
        gather: takes this rank's JSON value, returns those of all ranks in order, on every rank; nobody returns before
            everybody has called.
    """

    rank: int
    size: int
    gather: Callable[[Any], list[Any]]

    @property
    def who(self) -> str:
        """`rank 1 (host n1, pid 4711)`; empty in a run of one process."""
        return f"rank {self.rank} (host {socket.gethostname()}, pid {os.getpid()})" if self.size > 1 else ""

    @classmethod
    def single(cls) -> Ranks:
        """Returns the only rank of a run of one process."""
        return cls(0, 1, lambda value: [value])


class RankError(OSError):
    """What the system said to one of the ranks that save together; `who` names it, empty when there is only one."""

    def __init__(self, number: int, text: str, file: str, who: str) -> None:
        super().__init__(number, text, file)
        self.who = who


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that was published: its folder, size in bytes and how long it took."""

    folder: Path
    manifest: str
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SavePlan:
    """Who writes what: the blocks of each rank, and the index that readers get. The same on every rank."""

    shares: list[list[BlockSpec]]
    index: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Size of all blocks in bytes."""
        return sum(spec.nbytes for share in self.shares for spec in share)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a checkpoint is being written and what it will be called."""

    attempt: Attempt
    temporary: Path
    final: Path
    step: int


def checkpoint_name(step: int) -> str:
    """Returns the name of the folder of the checkpoint after `step` updates."""
    return f"{CHECKPOINT_PREFIX}{step:08d}"


def agree_on_plan(held: Sequence[BlockSpec], ranks: Ranks) -> SavePlan:
    """Returns who writes what, given the blocks that this rank holds; every rank calls it.

    Blocks that several ranks hold alike (same name, offsets and shape) are written once, shared out by bytes.
    """
    everything = ranks.gather([spec.to_json() for spec in held])
    shares = share_blocks([[BlockSpec.from_json(spec) for spec in specs] for specs in everything])
    return SavePlan(shares, make_index(shares))


def save_checkpoint(
    attempt: Attempt, step: int, plan: SavePlan, blocks: Mapping[str, Block], state: Mapping[str, Any], ranks: Ranks
) -> Saved:
    """Writes and publishes the checkpoint of `step`; every rank calls it.

    Args:
        attempt: whose checkpoint it is.
        step: updates made so far.
        plan: agreed on by all ranks.
        blocks: by key (BlockSpec.key); at least those that the plan gives to this rank.
        state: JSON values, of rank 0.
        ranks: this rank's place among those that save.

    Raises:
        Superseded: a later attempt has started; nothing was published.
        RunFailed: the disk is full or a file cannot be written; the temporary folder is gone, older checkpoints stay.
    """
    started = time.monotonic()
    final = attempt.checkpoints / checkpoint_name(step)
    temporary = atomic.temporary_name(final)
    mine = {spec.key: blocks[spec.key] for spec in plan.shares[ranks.rank]}
    try:
        opened = together(ranks, lambda: _open(attempt, temporary, ranks))
        temporary = Path(opened[0]["folder"])
        written = together(ranks, lambda: _write_rank_file(temporary / rank_file(ranks.rank), mine))
        files = {rank_file(rank): Written(w["size"], w["sha256"]) for rank, w in enumerate(written)}
        target = Target(attempt, temporary, final, step)
        published = together(ranks, lambda: _publish(target, files, plan.index, state) if ranks.rank == 0 else {})
    except OSError as error:
        raise _explain(error, attempt, step, temporary, plan.nbytes) from error
    except BaseException:
        if ranks.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Saved(final, published[0]["manifest"], published[0]["size"], time.monotonic() - started)


def rank_file(rank: int) -> str:
    """Returns the name of a rank's tensor file."""
    return f"rank-{rank:05d}.safetensors"


def sealed_json(values: dict[str, Any]) -> bytes:
    """Returns `values` as JSON that carries the SHA-256 of itself, so that one flipped bit is noticed."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**values, "sha256_of_the_above": digest}, indent=1) + "\n").encode()


def unseal_json(data: bytes) -> dict[str, Any]:
    """Returns what `sealed_json` was given.

    Raises:
        ValueError: the bytes are not exactly those that it returned.
    """
    values = json.loads(data)
    if not isinstance(values, dict):
        raise ValueError("not an object")
    values.pop("sha256_of_the_above", None)
    if sealed_json(values) != data:
        raise ValueError("its own hash does not match")
    return values


def together(ranks: Ranks, work: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs `work` on every rank and returns all results; when one rank fails, all raise its error (nobody waits)."""
    failure: Exception | None = None
    try:
        result = work()
    except OSError as error:
        result = {"failed": str(error), "errno": error.errno, "file": str(error.filename), "who": ranks.who}
    except Exception as error:
        failure, result = error, {"failed": str(error), "is_superseded": isinstance(error, Superseded)}
    results = ranks.gather(result)
    if failure is not None:
        raise failure
    for rank, other in enumerate(results):
        if "errno" in other:
            raise RankError(other["errno"] or errno.EIO, os.strerror(other["errno"] or 0), other["file"], other["who"])
        if "failed" in other:
            raise Superseded(other["failed"]) if other["is_superseded"] else RunFailed(f"rank {rank}: {other['failed']}")
    return results


def _open(attempt: Attempt, temporary: Path, ranks: Ranks) -> dict[str, Any]:
    if ranks.rank != 0:
        return {}
    attempt.check_current()
    os.mkdir(temporary, 0o700)
    return {"folder": str(temporary)}


def _write_rank_file(path: Path, blocks: Mapping[str, Block]) -> dict[str, Any]:
    written = write_safetensors(path, blocks)
    return {"size": written.size, "sha256": written.sha256}


def _publish(
    target: Target, files: dict[str, Written], index: dict[str, Any], state: Mapping[str, Any]
) -> dict[str, Any]:
    """Rank 0, after all ranks have written: index, state and manifest, flush, rename."""
    attempt, temporary = target.attempt, target.temporary
    files = dict(files)
    files[INDEX] = write_bytes(temporary / INDEX, [json.dumps(index).encode()])
    files[STATE] = write_bytes(temporary / STATE, [json.dumps(dict(state), indent=1, ensure_ascii=False).encode()])
    manifest = sealed_json(
        {
            "format": FORMAT,
            "step": target.step,
            "files": {name: {"bytes": file.size, "sha256": file.sha256} for name, file in files.items()},
        }
    )
    write_bytes(temporary / MANIFEST, [manifest])
    atomic.fsync_folder(temporary)
    for path in (attempt.metrics_path, attempt.ledger_path):
        if path.exists():
            atomic.fsync_file(path)
    attempt.check_current()
    os.rename(temporary, target.final)
    atomic.fsync_folder(target.final.parent)
    size = sum(file.size for file in files.values()) + len(manifest)
    return {"manifest": hashlib.sha256(manifest).hexdigest(), "size": size}


def _explain(error: OSError, attempt: Attempt, step: int, temporary: Path, needed: int) -> RunFailed:
    """Removes what was half-written and returns the sentence for the user."""
    shutil.rmtree(temporary, ignore_errors=True)
    if attempt.successor() is not None:  # it tidies up behind us, so a file may be gone under our hands
        later = attempt.successor()
        return Superseded(f"attempt {attempt.number} stops without saving: attempt {later} has started since")
    where = f"{error.who}: " if isinstance(error, RankError) and error.who else ""
    kept = "Older checkpoints are untouched; the same command continues from the last one."
    folder = attempt.checkpoints
    if error.errno in _NO_SPACE:
        usage = os.statvfs(folder)
        free = usage.f_bavail * usage.f_frsize
        return RunFailed(
            f"{where}disk full while saving step {step} in {folder}: the checkpoint needs {needed:,} bytes, {free:,} are free "
            f"now that the half-written one is removed ({error.strerror}). {kept}"
        )
    return RunFailed(f"{where}step {step} could not be saved in {folder}: {error.strerror} ({error.filename}). {kept}")
