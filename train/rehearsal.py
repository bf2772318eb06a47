"""The longest legal batch through all of a step, an evaluation and a save before step 1, so that memory runs out now or never.

The rehearsal changes nothing: learning rate 0, gradients of 0, optimizer state cleared, random state restored. It also
settles DDP's gradient buckets, which are rebuilt after the first backward: without it, three or more ranks would reduce
in another order after a restart and no longer be bitwise equal.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from configs.errors import RunFailed
from data_pipelines.collate import Batch
from train.checkpoint_files import Ranks, agree_on_plan
from train.checkpointer import Snapshot, describe
from train.distributed import gather_json, sum_over_ranks
from train.engines import Engine
from train.objectives import Objective
from train.shard_plan import BlockSpec

# A CPU gains nothing from larger micro-batches once the matrices are this tall.
CPU_TOKENS_PER_MICRO_BATCH = 4096
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the rehearsal found: the micro-batch in rows, and peak memory of this rank in bytes (total: 0 if unknown)."""

    micro_batch_size: int
    reason: str
    peak_bytes: int
    total_bytes: int


def worst_batch(rows: int, sequence_length: int, vocab_size: int, device: torch.device) -> Batch:
    """Returns `rows` full rows, every position labelled that can be; ids do not matter.

    A row is a document of all tokens but one, and that one. A document alone in its row needs no mask, and sdpa takes
    kernels with less memory then.
    """
    length = max(2, sequence_length - 1)
    ids = torch.arange(rows * sequence_length, device=device).remainder(vocab_size).view(rows, sequence_length)
    labels = ids.clone()
    labels[:, 0] = labels[:, length:] = -100
    position = torch.arange(sequence_length, device=device)
    position[length:] = 0
    starts = torch.arange(rows, device=device)[:, None] * sequence_length
    is_start = (position == 0).repeat(rows)
    bounds = [*is_start.nonzero().flatten().tolist(), rows * sequence_length]
    num_documents = len(bounds) - 1
    return Batch(
        input_ids=ids,
        labels=labels,
        position_ids=position.expand(rows, -1).contiguous(),
        cu_seqlens=torch.tensor(bounds, dtype=torch.int32, device=device),
        max_seqlen=length,
        target_index=(starts + torch.arange(length - 1, device=device)).flatten(),
        targets=labels[:, 1:length].flatten(),
        target_document=(torch.arange(rows, device=device) * (num_documents // rows)).repeat_interleave(length - 1),
        row_ids=np.full(rows, -1, dtype=np.int64),
        document_ids=np.full(num_documents, -1, dtype=np.int64),
        document_source=np.zeros(num_documents, dtype=np.int64),
    )


def choose_micro_batch(
    engine: Engine,
    module: nn.Module,
    objective: Objective,
    *,
    rows_per_rank: int,
    sequence_length: int,
    vocab_size: int,
    device: torch.device,
) -> tuple[int, str]:
    """Returns the largest micro-batch that fits, and why.

    On a GPU it halves from `rows_per_rank` until forward and backward of the worst batch survive on every rank; on a
    CPU, where memory running out kills the process, it takes 4,096 tokens.
    """
    if device.type == "cpu":
        rows = max(1, min(rows_per_rank, CPU_TOKENS_PER_MICRO_BATCH // sequence_length))
        return rows, f"auto: {CPU_TOKENS_PER_MICRO_BATCH:,} tokens on a CPU"
    with torch.random.fork_rng(devices=[device]):
        rows = largest_micro_batch(
            engine, module, objective, rows_per_rank, lambda rows: worst_batch(rows, sequence_length, vocab_size, device)
        )
    return rows, "auto: largest that survived the rehearsal"


def largest_micro_batch(
    engine: Engine, module: nn.Module, objective: Objective, rows: int, make_batch: Callable[[int], Batch]
) -> int:
    """Returns the first of `rows`, half of it, ... that survives on every rank, beside the state of the optimizer.

    Raises:
        RunFailed: not even one row does, or the engine cannot try again.
    """

    def survives(number: int) -> bool:
        has_survived = True
        try:
            # No exchange of gradients: memory may run out on one rank only, and the others would wait for it.
            forward_backward(engine, module, objective, make_batch(number), last=False)
        except torch.OutOfMemoryError:
            has_survived = False
        if (reset := getattr(module, "reset_iter_state", None)) is not None:
            reset()  # FSDP2 that was cut short once would make no gradients ever after
        votes = sum_over_ranks([float(has_survived)])[0]
        if votes < engine.dims.world and number > 1 and getattr(engine, "stage", 0) > 1:
            raise RunFailed(
                f"training.micro_batch_size=auto: {number} rows a rank do not fit, and DeepSpeed's ZeRO-2 and 3 cannot try "
                f"again after that; give a number below, such as training.micro_batch_size={-(-number // 2)}"
            )
        engine.discard()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return votes == engine.dims.world

    def halve() -> None:
        nonlocal rows
        while rows > 1 and not survives(rows):
            rows = -(-rows // 2)

    if not survives(1):
        raise RunFailed(
            f"not even one row of {make_batch(1).input_ids.shape[1]:,} tokens fits on this GPU: try adapter=lora, "
            "training.gradient_checkpointing=full or a shorter data.sequence_length"
        )
    forward_backward(engine, module, objective, make_batch(1))
    beside_optimizer_state(engine, halve)
    return rows


def forward_backward(
    engine: Engine, module: nn.Module, objective: Objective, batch: Batch, *, last: bool = True
) -> None:
    """Takes `batch` through forward and backward; all gradients are 0: only shapes, kernels and bucket order matter."""
    with engine.micro_batch(last):
        terms = objective.loss(module(batch), batch)
        engine.backward(sum((term.sum for term in terms), torch.zeros((), device=batch.input_ids.device)) * 0.0, last)


def rehearse(engine: Engine, module: nn.Module, objective: Objective, batch: Batch) -> int:
    """Runs `batch` through evaluation, a first step, and forward and backward of a later one; copies a checkpoint.

    Returns:
        Peak memory in bytes.
    """
    device = batch.input_ids.device

    def later_step() -> None:
        engine.discard()
        forward_backward(engine, module, objective, batch)
        rehearse_save(engine, device)
        engine.discard()

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        module.eval()
        with torch.no_grad():
            module(batch)
        module.train()
        forward_backward(engine, module, objective, batch)
        beside_optimizer_state(engine, later_step)
    return peak_memory_bytes(device)


def beside_optimizer_state(engine: Engine, work: Callable[[], None]) -> None:
    """Makes the update that changes nothing, and does `work` while the optimizer's state is there, as in all later steps.

    Gradients must be there.
    """
    optimizer: Any = engine.optimizer
    if not isinstance(optimizer, torch.optim.Optimizer):  # DeepSpeed's keeps what its first update has made
        engine.warm_up()
        work()
        return
    hooks = [
        optimizer.register_step_pre_hook(lambda *_: _zero_gradients(optimizer)),
        optimizer.register_step_post_hook(lambda *_: work()),
    ]
    try:
        engine.warm_up()
    finally:
        for hook in hooks:
            hook.remove()


def _zero_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Makes gradients 0 that are not: 0 times an infinite number is none, and would get into every weight."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.zero_()


def rehearse_save(engine: Engine, device: torch.device) -> None:
    """Copies what this rank will write of a checkpoint into memory of its own, as the first save does, and lets it go."""
    held = engine.state()
    ranks = Ranks(engine.dims.dp_rank, engine.dims.world, gather_json)
    plan = agree_on_plan(describe(held), ranks)
    blocks = {BlockSpec.key_of(name, shard.offsets): shard.tensor for name, shards in held.items() for shard in shards}
    Snapshot(plan.shares[ranks.rank], device).take(blocks)


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the highest memory use so far: of the allocator on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def total_memory_bytes(device: torch.device) -> int:
    """Returns the memory of the GPU, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
