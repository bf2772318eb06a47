"""Checkpoints of a training run: tensors and random state in, tensors and random state out. The torch part.

The protocol on disk is train/checkpoint_files.py (writing) and train/checkpoint_reading.py (finding, verifying).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from configs.errors import CheckpointError
from configs.runfolder import Attempt, RunFolder
from train.checkpoint_files import Ranks, Saved, save_checkpoint
from train.checkpoint_reading import Checkpoint, begin_attempt, open_checkpoint, retire
from train.distributed import Context, gather_json
from train.shard_files import NUMPY_DTYPES, Block
from train.shards import LocalShard

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TORCH_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


class LoadsState(Protocol):
    """The part of an engine that reads a checkpoint."""

    def load_state(self, names: Collection[str], read: Any) -> None:
        """Overwrites weights and optimizer state; `read(name)` returns a whole tensor."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """Where a process begins: its attempt, the checkpoint it continues from, and what was skipped as damaged."""

    attempt: Attempt
    checkpoint: Checkpoint | None
    skipped: list[str]


class Checkpointer:
    """Saves checkpoints of one attempt and deletes those no longer needed.

    Args:
        keep: how many of the newest checkpoints stay; the one of `best_step` stays too.
    """

    def __init__(self, attempt: Attempt, run: RunFolder, context: Context, *, keep: int) -> None:
        self._attempt = attempt
        self._run = run
        self._context = context
        self._keep = keep

    def save(self, step: int, tensors: Mapping[str, LocalShard], state: Mapping[str, Any]) -> Saved:
        """Publishes the checkpoint after `step` updates; every rank calls it with its own shards.

        The random state of this rank (CPU, and its GPU) is added. Returns when every rank may go on.

        Args:
            tensors: this rank's shards of weights and optimizer state, by name.
            state: JSON values, equal on all ranks; `best_step` names the checkpoint to keep.

        Raises:
            Superseded: a later attempt has started.
            RunFailed: the disk is full or cannot be written; older checkpoints stay.
        """
        is_main = self._context.is_main
        if is_main:
            self._attempt.event("saving", step=step)
        blocks = {name: to_block(shard) for name, shard in tensors.items()}
        blocks |= {name: to_block(LocalShard.whole(value)) for name, value in _random_state(self._context).items()}
        ranks = Ranks(self._context.rank, self._context.world_size, gather_json)
        saved = save_checkpoint(self._attempt, step, blocks, state, ranks)
        if is_main:
            self._attempt.event("saved", step=step, bytes=saved.size, seconds=round(saved.seconds, 3))
            for folder in retire(self._run, self._attempt, keep=self._keep, best_step=state.get("best_step")):
                self._attempt.event("removed", folder=str(folder))
        return saved


def start_attempt(run: RunFolder, facts: dict[str, Any], context: Context) -> Start:
    """Claims the next attempt of `run` and finds the checkpoint to continue from; every rank calls it, rank 0 does it.

    Args:
        facts: goes into start.json; `identity`, `store`, `weights` and `tokenizer` must be those of earlier starts.

    Raises:
        CheckpointError: on every rank, when the run is another one or all its checkpoints are damaged.
    """
    found: dict[str, Any] = {}
    failure: CheckpointError | None = None
    checkpoint: Checkpoint | None = None
    if context.is_main:
        try:
            attempt, checkpoint, skipped = begin_attempt(run, {**facts, "processes": context.world_size})
            found = {"number": attempt.number, "skipped": [damaged.sentence for damaged in skipped]}
            if checkpoint is not None:
                found["checkpoint"] = [str(checkpoint.folder), checkpoint.attempt]
        except CheckpointError as error:
            failure, found = error, {"error": str(error)}
    found = gather_json(found)[0]
    if failure is not None:
        raise failure
    if "error" in found:
        raise CheckpointError(found["error"])
    if checkpoint is None and "checkpoint" in found:
        folder, number = found["checkpoint"]
        checkpoint = open_checkpoint(Path(folder), number, is_verified=True)
    return Start(Attempt(run.path, found["number"]), checkpoint, found["skipped"])


def load(checkpoint: Checkpoint, engine: LoadsState, context: Context, *, seed: int) -> dict[str, Any]:
    """Puts weights, optimizer state and random state of `checkpoint` in place; returns its state.json.

    Any number of ranks may load what any other number saved. Random state is each rank's own, so with another number of
    ranks it is drawn afresh from (seed, step, rank).

    Raises:
        CheckpointError: tensors are missing, or some are left over: another model, adapter or optimizer.
    """
    names = [name for name in checkpoint.names() if not name.startswith("rng.")]
    _check_optimizer_keys(checkpoint, names)
    engine.load_state(names, lambda name: read_tensor(checkpoint, name))
    left = checkpoint.unread(("model.", "optimizer."))
    if left:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder} holds {left[0]} and {len(left) - 1} more tensors "
            "that this run does not have"
        )
    _restore_random_state(checkpoint, context, seed)
    return checkpoint.state


def read_tensor(checkpoint: Checkpoint, name: str) -> Tensor:
    """Returns tensor `name` of the checkpoint, whole, in memory of its own on the CPU."""
    return from_array(checkpoint.read(name), checkpoint.dtype(name))


def to_block(shard: LocalShard) -> Block:
    """Returns the shard's bytes; those of a CPU tensor are shared with it, not copied."""
    tensor = shard.tensor.detach().cpu().contiguous()
    name = DTYPE_NAMES[tensor.dtype]
    data = tensor.reshape(-1).view(torch.uint8).numpy().view(NUMPY_DTYPES[name]).reshape(tuple(tensor.shape))
    return Block(data, name, shard.global_shape, shard.offsets)


def from_array(array: Any, dtype: str) -> Tensor:
    """Returns the tensor of a writable array as `Checkpoint.read` gives it."""
    flat = torch.from_numpy(array.reshape(-1).view("u1")).view(_TORCH_DTYPES[dtype])
    return flat.reshape(array.shape)


def _random_state(context: Context) -> dict[str, Tensor]:
    prefix = f"rng.{context.rank:05d}"
    states = {f"{prefix}.cpu": torch.get_rng_state()}
    if context.device.type == "cuda":
        states[f"{prefix}.cuda"] = torch.cuda.get_rng_state(context.device)
    return states


def _restore_random_state(checkpoint: Checkpoint, context: Context, seed: int) -> None:
    prefix = f"rng.{context.rank:05d}"
    if checkpoint.ranks != context.world_size:
        text = f"{seed}/{checkpoint.step}/{context.rank}".encode()
        torch.manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:7], "big"))
        return
    torch.set_rng_state(read_tensor(checkpoint, f"{prefix}.cpu"))
    if context.device.type == "cuda" and f"{prefix}.cuda" in checkpoint.names():
        torch.cuda.set_rng_state(read_tensor(checkpoint, f"{prefix}.cuda"), context.device)


def _check_optimizer_keys(checkpoint: Checkpoint, names: list[str]) -> None:
    """Refuses optimizer state of some parameters only: an engine would start the others afresh without a word."""
    keys: dict[str, set[str]] = {name.removeprefix("model."): set() for name in names if name.startswith("model.")}
    for name in names:
        if name.startswith("optimizer."):
            parameter, key = name.removeprefix("optimizer.").rsplit(".", 1)
            keys.setdefault(parameter, set()).add(key)
    most = max(keys.values(), key=len, default=set())
    for parameter, own in keys.items():
        if own != most:
            missing = ", ".join(sorted(most - own))
            raise CheckpointError(f"checkpoint {checkpoint.folder} has no optimizer state {missing} of {parameter}")
