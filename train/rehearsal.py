"""The longest legal batch through all of a step and an evaluation before step 1, so that memory runs out now or never.

The rehearsal changes nothing: learning rate 0, gradients of 0, optimizer state cleared, random state restored. It also
settles DDP's gradient buckets, which are rebuilt after the first backward: without it, three or more ranks would reduce
in another order after a restart and no longer be bitwise equal.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from configs.errors import RunFailed
from data_pipelines.collate import Batch
from train.distributed import sum_over_ranks
from train.engines import Engine
from train.objectives import Objective

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
    """Returns `rows` full rows of one document each, every position but the first labelled; ids do not matter."""
    ids = torch.arange(rows * sequence_length, device=device).remainder(vocab_size).view(rows, sequence_length)
    labels = ids.clone()
    labels[:, 0] = -100
    position = torch.arange(sequence_length, device=device)
    target_index = (torch.arange(rows, device=device)[:, None] * sequence_length + position[:-1]).flatten()
    return Batch(
        input_ids=ids,
        labels=labels,
        position_ids=position.expand(rows, -1).contiguous(),
        cu_seqlens=torch.arange(rows + 1, dtype=torch.int32, device=device) * sequence_length,
        max_seqlen=sequence_length,
        target_index=target_index,
        targets=labels[:, 1:].flatten(),
        target_document=torch.arange(rows, device=device).repeat_interleave(sequence_length - 1),
        row_ids=np.full(rows, -1, dtype=np.int64),
        document_ids=np.full(rows, -1, dtype=np.int64),
        document_source=np.zeros(rows, dtype=np.int64),
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
    """Returns the largest micro-batch that fits, and why. No collectives but one vote per try.

    On a GPU it halves from `rows_per_rank` until forward and backward of the worst batch survive on every rank; on a
    CPU, where memory running out kills the process, it takes 4,096 tokens.
    """
    if device.type == "cpu":
        rows = max(1, min(rows_per_rank, CPU_TOKENS_PER_MICRO_BATCH // sequence_length))
        return rows, f"auto: {CPU_TOKENS_PER_MICRO_BATCH:,} tokens on a CPU"
    rows = rows_per_rank
    while True:
        survived = 1.0
        try:
            batch = worst_batch(rows, sequence_length, vocab_size, device)
            forward_backward(engine, module, objective, batch)
        except torch.OutOfMemoryError:
            survived = 0.0
        engine.discard()
        torch.cuda.empty_cache()
        if sum_over_ranks([1.0 - survived])[0] == 0:
            return rows, "auto: largest that survived the rehearsal"
        if rows == 1:
            raise RunFailed(
                f"not even one row of {sequence_length:,} tokens fits on this GPU: try adapter=lora, "
                "training.gradient_checkpointing=full or a shorter data.sequence_length"
            )
        rows = -(-rows // 2)


def forward_backward(engine: Engine, module: nn.Module, objective: Objective, batch: Batch) -> None:
    """Takes `batch` through forward and backward; all gradients are 0: only shapes, kernels and bucket order matter."""
    with engine.micro_batch(last=True):
        terms = objective.loss(module(batch), batch)
        engine.backward(sum((term.sum for term in terms), torch.zeros((), device=batch.input_ids.device)) * 0.0, last=True)


def rehearse(engine: Engine, module: nn.Module, objective: Objective, batch: Batch) -> int:
    """Runs `batch` through evaluation, twice through forward and backward, once through the optimizer.

    Returns:
        Peak memory in bytes.
    """
    device = batch.input_ids.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        module.eval()
        with torch.no_grad():
            module(batch)
        module.train()
        for _ in range(2):
            forward_backward(engine, module, objective, batch)
        engine.warm_up()
    return peak_memory_bytes(device)


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
