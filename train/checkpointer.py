"""Saving off the training path: the run stands still while bytes are copied; hashing, writing and publishing go on behind.

    save()   waits for the save before it, copies what this rank writes into buffers of its own, starts a thread, returns
    thread   writes, agrees with the other ranks, publishes, deletes what is no longer needed

The threads of all ranks agree over a process group that nobody else uses. One that fails is noticed by `has_failed` and
raised, the same on every rank, by the next `save` or `wait`.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from configs.runfolder import Attempt, RunFolder
from train.checkpoint import DTYPE_NAMES, TORCH_DTYPES, random_state, to_array
from train.checkpoint_files import Ranks, SavePlan, agree_on_plan, save_checkpoint, together
from train.checkpoint_reading import retire
from train.distributed import Context, gather_json, make_side_group
from train.shard_files import Block
from train.shard_plan import BlockSpec
from train.shards import LocalShard

# A process that fails while a save is under way lets it finish, but a peer may be gone for good.
CLOSE_WAIT_S = 60.0


class Snapshot:
    """A copy of the blocks that this rank writes, in memory allocated once; page-locked with a GPU.

    Attributes:
        blocks: the copy by key, for `save_checkpoint`.
        nbytes: size of the copy.
    """

    def __init__(self, specs: Sequence[BlockSpec], device: torch.device) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._buffers = {
            spec.key: torch.empty(spec.shape, dtype=TORCH_DTYPES[spec.dtype], pin_memory=self._on_gpu) for spec in specs
        }
        self.blocks = {
            spec.key: Block(to_array(self._buffers[spec.key]), spec.dtype, spec.global_shape, spec.offsets)
            for spec in specs
        }
        self.nbytes = sum(spec.nbytes for spec in specs)

    def take(self, held: Mapping[str, Tensor]) -> None:
        """Copies this rank's share of `held` (tensors by key); returns when they may change again.

        Raises:
            RuntimeError: a tensor has another type or shape than when the plan was made; a bug of the engine.
        """
        for key, buffer in self._buffers.items():
            tensor = held[key].detach()
            if tensor.dtype != buffer.dtype or tensor.shape != buffer.shape:
                raise RuntimeError(
                    f"{key} is {tensor.dtype} {tuple(tensor.shape)}, was {buffer.dtype} {tuple(buffer.shape)} when the "
                    "first checkpoint was planned"
                )
            buffer.copy_(tensor, non_blocking=self._on_gpu)
        if self._on_gpu:
            torch.cuda.synchronize(self._device)


class Checkpointer:
    """Saves checkpoints of one attempt and deletes those no longer needed. Every rank makes one, at the same place.

    Args:
        keep: how many of the newest checkpoints stay; the one of `best_step` stays too.

    Attributes:
        published: step of the newest checkpoint of this attempt that is on the disk, and the monotonic time of that.
        stall_s: seconds that the newest save kept the training waiting.
        num_waits: saves that had to wait for the one before them.
        on_saved: called by the thread with the seconds that a save took, from the copy to the published checkpoint.
    """

    def __init__(self, attempt: Attempt, run: RunFolder, context: Context, *, keep: int) -> None:
        self._attempt = attempt
        self._run = run
        self._context = context
        self._keep = keep
        group = make_side_group()
        self._ranks = Ranks(context.rank, context.world_size, lambda value: gather_json(value, group))
        self._plan: SavePlan | None = None
        self._keys: frozenset[str] = frozenset()
        self._snapshot: Snapshot | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.published: tuple[int, float] | None = None
        self.stall_s = 0.0
        self.num_waits = 0
        self.on_saved: Callable[[float], None] | None = None

    @property
    def has_failed(self) -> bool:
        """True when a save went wrong behind the training; this rank then asks for a stop, and `save` raises on all."""
        return self._failure is not None

    def save(self, step: int, tensors: Mapping[str, Sequence[LocalShard]], state: Mapping[str, Any]) -> None:
        """Takes the snapshot after `step` updates; every rank calls it with its own blocks. Writing goes on behind.

        The random state of this rank (CPU, and its GPU) is added.

        Args:
            step: updates made so far.
            tensors: this rank's blocks of weights and optimizer state, by the tensor's name.
            state: JSON values, equal on all ranks; `best_step` names the checkpoint to keep.

        Raises:
            Superseded: a later attempt has started (found by the save before this one).
            RunFailed: the save before this one found the disk full or not writable; older checkpoints stay.
        """
        began = time.monotonic()
        self.num_waits += self._thread is not None and self._thread.is_alive()
        self.wait()
        waited = time.monotonic() - began
        if self._context.is_main:
            self._attempt.event("saving", step=step)
        own = {name: [LocalShard.whole(value)] for name, value in random_state(self._context).items()}
        plan, snapshot = self._copy({**tensors, **own})
        self.stall_s = time.monotonic() - began
        arguments = (step, plan, snapshot, copy.deepcopy(dict(state)), waited)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when the checkpoint under way is published and old ones are gone; every rank calls it.

        Raises:
            Superseded, RunFailed: as `save`.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Lets a save under way finish, for a while; for the end of an attempt, however it comes. Raises nothing."""
        if self._thread is not None:
            self._thread.join(CLOSE_WAIT_S)

    def _copy(self, tensors: Mapping[str, Sequence[LocalShard]]) -> tuple[SavePlan, Snapshot]:
        held: dict[str, Tensor] = {}
        for name, shards in tensors.items():
            for shard in shards:
                held[BlockSpec.key_of(name, shard.offsets)] = shard.tensor
        if self._plan is None or self._snapshot is None:
            self._plan = agree_on_plan(describe(tensors), self._ranks)
            self._snapshot = Snapshot(self._plan.shares[self._ranks.rank], self._context.device)
            self._keys = frozenset(held)
        if held.keys() != self._keys:
            changed = sorted(held.keys() ^ self._keys)
            raise RuntimeError(f"the engine's state has other blocks than at the first checkpoint: {', '.join(changed[:3])}")
        self._snapshot.take(held)
        return self._plan, self._snapshot

    def _write(self, step: int, plan: SavePlan, snapshot: Snapshot, state: dict[str, Any], waited: float) -> None:
        """The thread."""
        stall = self.stall_s
        try:
            saved = save_checkpoint(self._attempt, step, plan, snapshot.blocks, state, self._ranks)
            self.published = (step, time.monotonic())
            if self.on_saved is not None:
                self.on_saved(stall + saved.seconds)
            if self._context.is_main:
                figures = {"seconds": round(saved.seconds, 3), "stall_s": round(stall, 4), "waited_s": round(waited, 3)}
                self._attempt.event("saved", step=step, bytes=saved.size, **figures)
            removed = together(self._ranks, lambda: self._retire(state.get("best_step")))[0]
            if self._context.is_main:
                for folder in removed["folders"]:
                    self._attempt.event("removed", folder=folder)
        except BaseException as error:
            self._failure = error

    def _retire(self, best_step: int | None) -> dict[str, Any]:
        if not self._context.is_main:
            return {}
        removed = retire(self._run, self._attempt, keep=self._keep, best_step=best_step)
        return {"folders": [str(folder) for folder in removed]}


def describe(tensors: Mapping[str, Sequence[LocalShard]]) -> list[BlockSpec]:
    """Returns what `tensors` (blocks by the tensor's name) are, without their elements."""
    return [
        BlockSpec(name, DTYPE_NAMES[shard.tensor.dtype], tuple(shard.tensor.shape), shard.global_shape, shard.offsets)
        for name, shards in tensors.items()
        for shard in shards
    ]
