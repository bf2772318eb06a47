"""Mixture-of-experts routers: how evenly they load the experts, and a loss that asks for it.

Legend: S tokens of a micro-batch (B * T, documents one behind the other), D its documents, E experts of a layer,
K of them chosen per token, L layers with experts.

The balance loss is DeepSeek-V3's complementary sequence-wise one (arXiv 2412.19437, equations 17 to 20), with a
document in the place of the sequence: it is a sum over documents, so packing, micro-batches and ranks do not change it.
The batch-wise form would depend on all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import ConfigError
from data_pipelines.collate import Batch
from train.distributed import sum_over_ranks
from train.objectives import Measured, Objective, Term, look_at_window

_ROUTER_SUFFIXES = ("TopkRouter", "TopKRouter")
# How a router turns logits into affinities; each proven against the weights that it returns itself.
AFFINITIES = {
    "DeepseekV3TopkRouter": "sigmoid",
    "Qwen3MoeTopKRouter": "softmax",
    "MixtralTopKRouter": "softmax",
}


def routers(model: nn.Module) -> list[nn.Module]:
    """Returns the routers of `model` in the order of its layers; their forward returns (logits, weights, indices)."""
    return [module for module in model.modules() if type(module).__name__.endswith(_ROUTER_SUFFIXES)]


def moe_blocks(model: nn.Module) -> list[type[nn.Module]]:
    """Returns the classes of blocks that hold a router and its experts.

    Which experts run depends on the tokens, so ZeRO-3 must fetch such a block as one (a leaf module): fetching
    expert by expert, ranks with other tokens would wait for each other for ever.
    """
    found = []
    for module in model.modules():
        names = {name for name, _ in module.named_children()}
        is_block = any(type(child).__name__.endswith(_ROUTER_SUFFIXES) for child in module.children())
        if is_block and "experts" in names and type(module) not in found:
            found.append(type(module))
    return found


def affinities(logits: Tensor, kind: str) -> Tensor:
    """Returns each expert's affinity `[S, E]` fp32 (float64 stays), normalised to sum 1 over the experts of a token."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if kind == "softmax":
        return logits.softmax(-1)
    scores = logits.sigmoid()
    return scores / scores.sum(-1, keepdim=True)


def balance_loss(logits: Tensor, indices: Tensor, lengths: Tensor, real: Tensor, kind: str) -> Tensor:
    """Returns the sum over documents of `sum_i f_i * P_i` of one layer, a scalar.

    f_i is E / (K * T) times how often expert i was chosen in the document's T tokens (no gradient), P_i the mean of its
    normalised affinity there. An even load gives 1 per document, all tokens to the same K experts up to E / K.

    Args:
        logits: `[S, E]` of the router.
        indices: `[S, K]` chosen experts.
        lengths: `[D]` tokens of each document, one behind the other; they sum to S.
        real: `[D]` False for documents that do not count (padding).
        kind: `sigmoid` or `softmax`.
    """
    share = affinities(logits, kind)
    lengths = lengths.long()
    num_experts, chosen = share.shape[1], indices.shape[1]
    document = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths, output_size=len(share))
    place = (document[:, None] * num_experts + indices).reshape(-1)
    counts = torch.zeros(len(lengths) * num_experts, dtype=share.dtype, device=share.device)
    counts.index_add_(0, place, torch.ones_like(place, dtype=share.dtype))
    tokens = lengths[:, None].to(share.dtype)
    frequency = counts.view(-1, num_experts) * num_experts / (chosen * tokens)
    mean = torch.segment_reduce(share, "sum", lengths=lengths, axis=0, unsafe=True) / tokens
    return ((frequency * mean).sum(1) * real).sum()


class Router:
    """Watches the routers of one model while it runs forward.

    Hooks only keep what a router returns, and only inside `collect`: recomputation in the backward pass fires them
    again, and what they did inside a checkpointed layer would have to be the same both times.

    Args:
        model: with at least one router.
        weight: of the balance loss; 0: only the load is counted.

    Raises:
        ConfigError: a balance loss is asked for and the affinities of this kind of router are not known.
    """

    def __init__(self, model: nn.Module, *, weight: float = 0.0) -> None:
        found = routers(model)
        self._kinds = [AFFINITIES.get(type(router).__name__) for router in found]
        self._weight = weight
        if weight and None in self._kinds:
            name = type(found[self._kinds.index(None)]).__name__
            raise ConfigError(f"model.router_balance={weight:g}: {name} is not known; expected 0, or one of {', '.join(AFFINITIES)}")
        self._is_collecting = False
        self._captured: dict[int, tuple[Tensor, Tensor]] = {}
        self._balance: Tensor | None = None
        self._load: Tensor | None = None
        for number, router in enumerate(found):
            router.register_forward_hook(partial(self._capture, number))

    def _capture(self, number: int, module: nn.Module, arguments: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        if self._is_collecting:
            logits, _, indices = output
            self._captured[number] = (logits if self._weight else logits.detach(), indices.detach())

    @contextlib.contextmanager
    def collect(self, batch: Batch) -> Iterator[None]:
        """Gathers what the routers do with `batch` inside the context: one forward pass of the model."""
        self._captured = {}
        self._is_collecting = True
        try:
            yield
        finally:
            self._is_collecting = False
        captured, self._captured = self._captured, {}
        if len(captured) != len(self._kinds):
            raise RuntimeError(f"{len(captured)} of {len(self._kinds)} routers ran in one forward pass")
        lengths = batch.cu_seqlens.diff()
        real = torch.from_numpy(batch.document_ids >= 0).to(lengths.device, non_blocking=True)
        self._count(captured, lengths, real)
        if self._weight:
            parts = [
                balance_loss(*captured[number], lengths, real, str(kind)) for number, kind in enumerate(self._kinds)
            ]
            self._balance = torch.stack(parts).sum() * self._weight

    def _count(self, captured: dict[int, tuple[Tensor, Tensor]], lengths: Tensor, real: Tensor) -> None:
        """Adds the real tokens that each expert got to `[L, E]`; nothing is read back from the device."""
        with torch.no_grad():
            tokens = len(captured[0][0])
            counts = real.repeat_interleave(lengths, output_size=tokens).double()
            if self._load is None:
                num_experts = captured[0][0].shape[1]
                self._load = torch.zeros(len(captured), num_experts, dtype=torch.float64, device=counts.device)
            for number, (_, indices) in captured.items():
                self._load[number].index_add_(0, indices.reshape(-1), counts.repeat_interleave(indices.shape[1]))

    def take_balance(self) -> Tensor:
        """Returns the weighted sum over the documents of the last forward pass and over layers; with its gradient."""
        assert self._balance is not None, "no forward pass was collected"
        balance, self._balance = self._balance, None
        return balance

    def figures(self) -> dict[str, float]:
        """Returns the load since the last call, over all ranks, and forgets it. Every rank calls it.

        `router_load_max`: tokens of the busiest expert over the mean of its layer, in the worst layer; 1 is even.
        `router_load_min`: the same of the least used one; 0: some expert got no token.
        """
        if self._load is None:
            return {}
        shape = self._load.shape
        load = torch.tensor(sum_over_ranks(self._load.flatten().tolist()), dtype=torch.float64).view(shape)
        self.clear()
        share = load / load.mean(1, keepdim=True).clamp(min=1e-9)
        return {"router_load_max": float(share.max()), "router_load_min": float(share.min())}

    def clear(self) -> None:
        """Forgets the load counted so far."""
        self._load = None


class Balanced:
    """An objective with the balance loss as one more term, counted by real documents."""

    def __init__(self, objective: Objective, router: Router) -> None:
        self._objective = objective
        self._router = router

    def units(self, batch: Batch) -> dict[str, int]:
        """Returns the objective's units and the real documents."""
        return {**self._objective.units(batch), "documents": int((batch.document_ids >= 0).sum())}

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        """Returns the objective's terms and the balance of the forward pass that made `scores`."""
        return (*self._objective.loss(scores, batch), Term("balance", self._router.take_balance(), "documents"))

    def measure(self, scores: Tensor, batch: Batch) -> Measured:
        """Returns what the objective measures: an evaluation says nothing of balance."""
        return self._objective.measure(scores, batch)

    def window_stats(self, module: nn.Module, batches: Iterable[Batch]) -> None:
        """Passes the window on to an objective that asks for it."""
        look_at_window(self._objective, module, batches)
