"""A plain loop that knows nothing of our step, scores, engines or packing: one process, fp32, every document alone.

All logits, cross-entropy summed and divided by the number of labels, the norm in fp64, `torch.optim`. What a run
computes is compared with this.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import AdapterSection, OptimizerSection

Curve = dict[str, list[float]]
IGNORED = -100
# Called with (step, document) around each forward pass: routing is recorded there.
Watch = Callable[[int, int], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One document: token ids `[n]` and labels `[n]`, not shifted, -100 where nothing is learned."""

    ids: list[int]
    labels: list[int]


def read_labelled(store: Path) -> list[Labelled]:
    """Returns every document of one part of a store, read from its files: the label is the id where the mask is True."""
    ids, mask = np.load(store / "ids.npy"), np.load(store / "mask.npy")
    offsets = np.load(store / "document_offsets.npy")
    documents = []
    for begin, end in itertools.pairwise(offsets.tolist()):
        part = ids[begin:end].astype(np.int64)
        documents.append(Labelled(part.tolist(), np.where(mask[begin:end], part, IGNORED).tolist()))
    return documents


def load_plainly(folder: Path, adapter: AdapterSection, seed: int, device: torch.device) -> nn.Module:
    """Returns the model of `folder` in fp32 with transformers' own attention, every weight trained; or its adapter alone.

    Adapters are drawn by `train.adapters` (both sides must start equal); what is trained is decided here, by name.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True, trust_remote_code=False
    )
    if adapter.name != "none":
        from train.adapters import attach

        model = attach(model, adapter, seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(adapter.name == "none" or "lora_" in name or ".modules_to_save." in name)
    network: nn.Module = model.to(device).train()
    return network


def plain_optimizer(model: nn.Module, section: OptimizerSection, lr: float) -> torch.optim.Optimizer:
    """Returns torch's optimizer; decay acts on what has two dimensions or more."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": section.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if section.name == "sgd":
        return torch.optim.SGD(groups, lr=lr)
    return torch.optim.AdamW(groups, lr=lr, betas=(section.beta1, section.beta2), eps=section.eps)


def train_plainly(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: Sequence[Sequence[Labelled]],
    max_grad_norm: float,
    watch: Watch = lambda step, document: contextlib.nullcontext(),
) -> Curve:
    """Returns loss and gradient norm (before clipping; 0 clips nothing) of each step on the documents `steps[i]`."""
    curve: Curve = {"loss": [], "grad_norm": []}
    trained = [p for p in model.parameters() if p.requires_grad]
    for number, documents in enumerate(steps):
        curve["loss"].append(accumulate(model, documents, functools.partial(watch, number)))
        curve["grad_norm"].append(clip(trained, max_grad_norm))
        optimizer.step()
        optimizer.zero_grad()
    return curve


def total_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Returns the norm over all gradients, summed in fp64: torch's in fp32 is 1e-5 off on a CPU."""
    return math.sqrt(sum(p.grad.double().square().sum().item() for p in parameters if p.grad is not None))


def clip(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Clips gradients in place to `max_norm` (0: not at all); returns their norm before."""
    norm = total_norm(parameters)
    for parameter in parameters:
        if max_norm and parameter.grad is not None:
            parameter.grad.mul_(min(1.0, max_norm / (norm + 1e-6)))
    return norm


def accumulate(
    model: nn.Module,
    documents: Sequence[Labelled],
    watch: Callable[[int], AbstractContextManager[object]] = lambda document: contextlib.nullcontext(),
) -> float:
    """Adds the gradients of the mean loss over all labels of `documents`; returns that loss."""
    total, count = 0.0, _count(documents)
    for number, document in enumerate(documents):
        with watch(number):
            loss = _sum(model, document) / count
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


def evaluate_plainly(
    model: nn.Module,
    documents: Sequence[Labelled],
    watch: Callable[[int], AbstractContextManager[object]] = lambda document: contextlib.nullcontext(),
) -> float:
    """Returns the mean loss over all labels of `documents`, without dropout; leaves the model in training mode."""
    model.eval()
    total = 0.0
    with torch.no_grad():
        for number, document in enumerate(documents):
            with watch(number):
                total += _sum(model, document).item()
    model.train()
    return total / _count(documents)


def _count(documents: Sequence[Labelled]) -> int:
    return sum(label != IGNORED for document in documents for label in document.labels[1:])


def _sum(model: nn.Module, document: Labelled) -> Tensor:
    device = next(model.parameters()).device
    ids, labels = torch.tensor(document.ids, device=device), torch.tensor(document.labels, device=device)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits.float(), labels[1:], ignore_index=IGNORED, reduction="sum")
