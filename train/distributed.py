"""The process group: who am I among how many, and small exchanges between ranks."""

from __future__ import annotations

import datetime
import json
import os
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from train.activity import begin_collective, end_collective

# A rank that dies is noticed at once (its sockets close); this bounds the wait for one that hangs.
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=30)

# Process groups that were left, and a moment for their threads to come to rest: see `shutdown`.
_left: list[Any] = []
REST_S = 0.05


@dataclass(frozen=True, slots=True)
class Dims:
    """This rank's place. Data slices, loss scale and ledger use `dp_*`, never the world size."""

    dp_rank: int
    dp_size: int
    world: int


@dataclass(frozen=True, slots=True)
class Context:
    """One process of the run."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def rank_from_environment() -> tuple[int, int, int]:
    """Returns (rank, local rank, world size) as set by torchrun or srun; (0, 0, 1) without them."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    if "RANK" not in os.environ and "SLURM_PROCID" in os.environ and "MASTER_ADDR" in os.environ:
        names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
    rank, local_rank, world_size = (int(os.environ.get(name, default)) for name, default in zip(names, "001", strict=True))
    return rank, local_rank, world_size


def start(
    backend: str, device_kind: str, *, needs_group: bool = False, timeout_s: float = 0.0
) -> Context:
    """Joins the process group that the environment describes; one process alone needs none, unless its engine does.

    Args:
        backend: `gloo` or `nccl`.
        device_kind: `cpu` or `cuda`.
        needs_group: make a group of one, too: DeepSpeed and device meshes want one.
        timeout_s: least time after which a collective gives up by itself, when that is more than COLLECTIVE_TIMEOUT.
    """
    rank, local_rank, world_size = rank_from_environment()
    if world_size > 1:  # Accelerate and DeepSpeed read torchrun's names only
        for name, value in (("RANK", rank), ("LOCAL_RANK", local_rank), ("WORLD_SIZE", world_size)):
            os.environ.setdefault(name, str(value))
        os.environ.setdefault("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", str(world_size)))
    device = torch.device("cuda", local_rank) if device_kind == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size > 1 or needs_group:
        timeout = max(COLLECTIVE_TIMEOUT, datetime.timedelta(seconds=timeout_s))
        store = torch._C._distributed_c10d.HashStore() if world_size == 1 else None
        dist.init_process_group(
            backend,
            init_method=None if store else "env://",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=timeout,
        )
        if dist.get_world_size() != world_size:
            raise RuntimeError(f"process group has {dist.get_world_size()} ranks, expected {world_size}")
    return Context(rank, local_rank, world_size, device)


def is_distributed() -> bool:
    """True when this process is one of several."""
    return dist.is_available() and dist.is_initialized()


def _exchange_device(group: dist.ProcessGroup | None = None) -> torch.device:
    on_gpu = dist.get_backend(group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def make_side_group() -> dist.ProcessGroup | None:
    """Returns a group of all ranks over the CPU, for a thread beside the training; every rank calls it. None when alone.

    Two threads must not share a group: their collectives would meet in another order on each rank.
    """
    if not is_distributed():
        return None
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
    _left.append(group)  # kept to the end of the process: see `shutdown`
    return group


def sum_over_ranks(values: list[float]) -> list[float]:
    """Returns the sums of `values` over all ranks, in float64; one collective."""
    if not is_distributed():
        return values
    begin_collective("all_reduce")
    tensor = torch.tensor(values, dtype=torch.float64, device=_exchange_device())
    dist.all_reduce(tensor)
    sums: list[float] = tensor.tolist()
    end_collective()
    return sums


def gather_json(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Returns every rank's `value` (JSON types), in rank order, on every rank; over `group`, or that of the training."""
    if not is_distributed():
        return [value]
    if group is None:
        begin_collective("all_gather")
    device = _exchange_device(group)
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    sizes = [int(size) for size in _all_gather(torch.tensor([len(data)], device=device), group).flatten().tolist()]
    padded = torch.zeros(max(sizes), dtype=torch.uint8, device=device)
    padded[: len(data)] = data
    rows = _all_gather(padded, group)
    if group is None:
        end_collective()
    return [json.loads(bytes(row[:size].cpu().numpy())) for row, size in zip(rows, sizes, strict=True)]


def _all_gather(tensor: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor, group=group)
    return torch.stack(parts)


def broadcast_json(value: Any) -> Any:
    """Returns rank 0's `value` (JSON types) on every rank."""
    return gather_json(value)[0]


def barrier() -> None:
    """Waits for every rank."""
    if is_distributed():
        begin_collective("barrier")
        dist.barrier()
        end_collective()


def shutdown() -> None:
    """Leaves the process group.

    Its destructor joins gloo's threads while it holds the interpreter's lock, and one of them may be waiting for that
    lock to free the last barrier: then a rank hangs for ever after its run is done (seen in 8 of 60 runs on 3 ranks,
    when the DDP wrapper dropped the last reference). So the group is kept, and the threads get the lock once more.
    """
    if is_distributed():
        _left.append(dist.group.WORLD)
        dist.destroy_process_group()
        time.sleep(REST_S)
