"""Which experts a reference run chose, given to other runs.

Two engines differ in the last bits; once in a while that tips a token to another expert, and from there on they are two
models. To compare the arithmetic beside the choice, a run replays the choices of the reference: by step, layer and row
of the store, so that ranks, micro-batches and recomputation may cut the global batch as they like.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_pipelines.collate import Batch
from train.router import AFFINITIES, routers
from train.scores import Scores


class Routing:
    """Records the experts that routers choose, or replays what was recorded.

    Nothing happens while `step` is below 0: rehearsal and checks come before the first step.

    Args:
        choices: `[T, K]` by `step/layer/row`; None: record.
    """

    def __init__(self, choices: dict[str, NDArray[np.int16]] | None = None) -> None:
        self.is_replaying = choices is not None
        self.choices: dict[str, NDArray[np.int16]] = choices or {}
        self.step = -1
        self.replayed = 0
        self.changed = 0
        self._batch: Batch | None = None

    @classmethod
    def load(cls, path: Path) -> Routing:
        """Returns the replay of what `save` wrote."""
        with np.load(path) as file:
            return cls({name: file[name] for name in file.files})

    def save(self, path: Path) -> None:
        """Writes the choices as .npz."""
        np.savez(path, **self.choices)  # type: ignore[arg-type]

    def attach(self, scores: Scores) -> None:
        """Follows the routers of `scores`; before an engine takes it over."""
        scores.register_forward_pre_hook(self._note_batch)
        for layer, router in enumerate(routers(scores.model)):
            # First of all hooks: what counts loads and balances them must see the experts that run.
            router.register_forward_hook(partial(self._follow, layer), prepend=True)

    def in_runs(self) -> None:
        """Attaches to every Scores that this process makes from now on, and counts the steps of its loop."""
        import train.loop as loop

        make, train_step = Scores.__init__, loop.train_step

        def attached(scores: Scores, *arguments: Any, **options: Any) -> None:
            make(scores, *arguments, **options)
            self.attach(scores)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.step += 1
            return train_step(*arguments, **options)

        Scores.__init__ = attached  # type: ignore[method-assign,assignment]
        loop.train_step = counted

    def _note_batch(self, scores: nn.Module, arguments: tuple[Any, ...]) -> None:
        # Kept until the next one: a layer that is recomputed in the backward pass finds it here too.
        self._batch = arguments[0] if scores.training and self.step >= 0 else None

    def _follow(self, layer: int, router: nn.Module, arguments: Any, output: tuple[Tensor, Tensor, Tensor]) -> Any:
        if self._batch is None:
            return None
        logits, weights, indices = output
        rows = self._batch.row_ids
        by_row = indices.view(len(rows), -1, indices.shape[1])
        names = {place: f"{self.step}/{layer}/{row}" for place, row in enumerate(rows.tolist()) if row >= 0}
        if not self.is_replaying:
            self.choices |= {name: by_row[place].to(torch.int16).cpu().numpy() for place, name in names.items()}
            return None
        chosen = by_row.clone()
        for place, name in names.items():
            chosen[place] = torch.from_numpy(self.choices[name]).to(chosen)
        chosen = chosen.view_as(indices)
        self.replayed += len(chosen)
        self.changed += int((chosen.sort(1).values != indices.sort(1).values).any(1).sum())
        return logits, weigh(router, logits, chosen).to(weights.dtype), chosen


def weigh(router: nn.Module, logits: Tensor, indices: Tensor) -> Tensor:
    """Returns the weights `[S, K]` that `router` gives these experts, as its own forward computes them."""
    is_sigmoid = AFFINITIES[type(router).__name__] == "sigmoid"
    scores = logits.sigmoid() if is_sigmoid else logits.float().softmax(-1)
    weights = scores.gather(1, indices)
    if getattr(router, "norm_topk_prob", True):
        weights = weights / (weights.sum(-1, keepdim=True) + (1e-20 if is_sigmoid else 0.0))
    return weights * float(getattr(router, "routed_scaling_factor", 1.0))
