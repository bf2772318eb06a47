"""Which experts each token went to in the plain loop, recorded there and replayed in a run.

Two experts whose scores are nearly equal change places by rounding alone, and the loss jumps: a difference that says
nothing about a run's arithmetic. With the choice replayed, weights of the experts and every gradient are still the run's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from data_pipelines.collate import Batch
from data_pipelines.index import Store

# (step, document) -> [layers, n, k] chosen experts; the step behind the last one is the evaluation.
Routes = dict[tuple[int, int], NDArray[np.int64]]
_TOPK = (torch.topk, torch.Tensor.topk)


def find_routers(model: nn.Module) -> list[nn.Module]:
    """Returns the modules that choose experts, in the order of layers."""
    return [
        module
        for module in model.modules()
        if "router" in type(module).__name__.lower() and hasattr(module, "top_k") and hasattr(module, "num_experts")
    ]


class _Choice(TorchFunctionMode):
    """Sees the choice of experts inside a router's forward; `given` `[n, k]` replaces it."""

    def __init__(self, num_experts: int, top_k: int, given: Tensor | None) -> None:
        super().__init__()
        self._wanted = (num_experts, top_k)
        self._given = given
        self.chosen: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _TOPK:
            k = kwargs["k"] if "k" in kwargs else args[1]
            if (args[0].shape[-1], k) == self._wanted:
                if self._given is not None:
                    return args[0].gather(-1, self._given), self._given
                found = func(*args, **kwargs)
                self.chosen = found[1].detach()
                return found
        return func(*args, **kwargs)


@dataclass(slots=True)
class Recorder:
    """Keeps what the routers of a model choose, by (step, document)."""

    routes: Routes = field(default_factory=dict)
    _now: list[Tensor] = field(default_factory=list)

    def attach(self, model: nn.Module) -> None:
        """Listens to every router."""
        for router in find_routers(model):
            _wrap(router, lambda: None, self._now.append)

    @contextlib.contextmanager
    def document(self, step: int, number: int) -> Iterator[None]:
        """Context of one document's forward pass."""
        self._now.clear()
        yield
        if self._now:
            self.routes[step, number] = torch.stack(self._now).cpu().numpy()

    def save(self, path: Path) -> None:
        """Writes the routes."""
        np.savez(path, **{f"{step}/{number}": value for (step, number), value in self.routes.items()})  # type: ignore[arg-type]


def read_routes(path: Path) -> Routes:
    """Reads what `Recorder.save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return {(int(name.split("/")[0]), int(name.split("/")[1])): file[name] for name in file.files}


@dataclass(slots=True)
class Replay:
    """Makes the routers of a model choose what was recorded; `step` is set from outside.

    Args:
        routes: of the plain loop.
        store: whose `document_row` numbers documents from 1 in the order in which the plain loop took them.
    """

    routes: Routes
    store: Store
    step: int = 0
    _batch: Batch | None = None

    def attach(self, scores: nn.Module, model: nn.Module) -> None:
        """Takes over every router of `model`; `scores` is the module that is called with a batch."""
        scores.register_forward_pre_hook(self._remember)
        for layer, router in enumerate(find_routers(model)):
            _wrap(router, lambda layer=layer: self._given(layer), lambda chosen: None)

    def _remember(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._batch = args[0]

    def _given(self, layer: int) -> Tensor | None:
        """Returns `[tokens, k]` for the batch at hand; padding goes to the first experts."""
        batch = self._batch
        if batch is None or not (batch.document_ids >= 0).any():
            return None
        top_k = next(iter(self.routes.values())).shape[-1]
        bounds = batch.cu_seqlens.tolist()
        given = np.tile(np.arange(top_k), (bounds[-1], 1))
        for place, document in enumerate(batch.document_ids.tolist()):
            if document >= 0:
                number = int(self.store.document_row[document]) - 1
                given[bounds[place] : bounds[place + 1]] = self.routes[self.step, number][layer]
        return torch.from_numpy(given).to(batch.input_ids.device)


def _wrap(router: Any, given: Any, keep: Any) -> None:
    forward, num_experts, top_k = router.forward, int(router.num_experts), int(router.top_k)

    def watched(*args: Any, **kwargs: Any) -> Any:
        choice = _Choice(num_experts, top_k, given())
        with choice:
            result = forward(*args, **kwargs)
        if choice.chosen is not None:
            keep(choice.chosen)
        return result

    router.forward = watched
