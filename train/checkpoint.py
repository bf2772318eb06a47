"""Checkpoints of a training run: tensors and random state in, tensors and random state out. The torch part.

Saving is train/checkpointer.py; the protocol on disk is train/checkpoint_files.py (writing) and
train/checkpoint_reading.py (finding, verifying).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from configs.errors import CheckpointError
from configs.runfolder import Attempt, RunFolder
from train.checkpoint_reading import Checkpoint, begin_attempt, open_checkpoint
from train.distributed import Context, gather_json
from train.shard_files import NUMPY_DTYPES
from train.shards import TensorReader

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
_FOREIGN = "another model, adapter or optimizer wrote it; --new starts a new run"
TORCH_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


class LoadsState(Protocol):
    """The part of an engine that reads a checkpoint."""

    def load_state(self, reader: TensorReader) -> None:
        """Overwrites weights and optimizer state with what `reader` has."""
        ...


class CheckpointReader:
    """The weights and optimizer state of a checkpoint as tensors; implements TensorReader.

    Args:
        checkpoint: verified and open.
        prefixes: of the names it has; `("model.",)` leaves out optimizer state.
    """

    def __init__(self, checkpoint: Checkpoint, prefixes: tuple[str, ...] = ("model.", "optimizer.")) -> None:
        self._checkpoint = checkpoint
        self._names = dict.fromkeys(name for name in checkpoint.names() if name.startswith(prefixes))

    def names(self) -> Collection[str]:
        """Returns the names, `model.NAME` and `optimizer.NAME.KEY`."""
        return self._names.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the whole tensor."""
        return self._checkpoint.shape(name)

    def read(self, name: str) -> Tensor:
        """Returns the whole tensor, in memory of its own on the CPU."""
        return from_array(self._checkpoint.read(name), self._checkpoint.dtype(name))

    def read_flat(self, name: str, start: int, stop: int) -> Tensor:
        """Returns elements `start` to `stop` of the flattened tensor; reads only those from the disk."""
        return from_array(self._checkpoint.read_flat(name, start, stop), self._checkpoint.dtype(name))


@dataclass(frozen=True, slots=True)
class Start:
    """Where a process begins: its attempt, the checkpoint it continues from, and what was skipped as damaged."""

    attempt: Attempt
    checkpoint: Checkpoint | None
    skipped: list[str]


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
    reader = CheckpointReader(checkpoint)
    _check_optimizer_keys(checkpoint, reader.names())
    try:
        engine.load_state(reader)
    except CheckpointError as error:
        if str(checkpoint.folder) in str(error):
            raise
        raise CheckpointError(f"{checkpoint.folder}: {error}: {_FOREIGN}") from error
    # A rank of a sharded engine may have no part of some tensor: left over is what no rank asked for.
    everywhere = gather_json(checkpoint.unread(("model.", "optimizer.")))
    left = [name for name in everywhere[0] if all(name in others for others in everywhere[1:])]
    if left:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder} holds {left[0]} and {len(left) - 1} more tensors "
            f"that this run does not have: {_FOREIGN}"
        )
    _restore_random_state(checkpoint, context, seed)
    return checkpoint.state


def to_array(tensor: Tensor) -> npt.NDArray[np.generic]:
    """Returns the elements of a contiguous CPU tensor, shared with it; BF16 as 16-bit words."""
    words = tensor.reshape(-1).view(torch.uint8).numpy().view(NUMPY_DTYPES[DTYPE_NAMES[tensor.dtype]])
    return words.reshape(tuple(tensor.shape))


def from_array(array: Any, dtype: str) -> Tensor:
    """Returns the tensor of a writable array as `Checkpoint.read` gives it."""
    flat = torch.from_numpy(array.reshape(-1).view("u1")).view(TORCH_DTYPES[dtype])
    return flat.reshape(array.shape)


def random_state(context: Context) -> dict[str, Tensor]:
    """Returns the state of this rank's generators, CPU and its GPU, under names of its own."""
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
    reader = CheckpointReader(checkpoint, ("rng.",))
    torch.set_rng_state(reader.read(f"{prefix}.cpu"))
    if context.device.type == "cuda" and f"{prefix}.cuda" in reader.names():
        torch.cuda.set_rng_state(reader.read(f"{prefix}.cuda"), context.device)


def _check_optimizer_keys(checkpoint: Checkpoint, names: Collection[str]) -> None:
    """Refuses optimizer state of some parameters only: an engine would start the others afresh without a word."""
    keys: dict[str, set[str]] = {name.removeprefix("model."): set() for name in names if name.startswith("model.")}
    for name in names:
        if name.startswith("optimizer."):
            parameter, key = name.removeprefix("optimizer.").rsplit(".", 1)
            keys.setdefault(parameter, set()).add(key)
    most = max(keys.values(), key=len, default=set())
    for parameter, own in sorted(keys.items()):
        if own != most:
            missing = ", ".join(sorted(most - own))
            raise CheckpointError(f"checkpoint {checkpoint.folder} has no optimizer state {missing} of {parameter}")
