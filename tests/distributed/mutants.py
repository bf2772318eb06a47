"""Known mistakes of fine-tuning code, put back into the real code of this process: the comparisons must notice each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor


def mean_of_means() -> None:
    """Each micro-batch's loss is its own mean; those are averaged over micro-batches and ranks."""
    from train.objectives import Term
    from train.objectives.sft import Sft

    def mean(self: Sft, scores: Tensor, batch: Any) -> tuple[Term, ...]:
        return (Term("loss", -scores.mean() if len(scores) else -scores.sum(), "tokens"),)

    Sft.units = lambda self, batch: {"tokens": 1}  # type: ignore[method-assign]
    Sft.loss = mean  # type: ignore[method-assign]


def use_cache() -> None:
    """The model is called with its cache on, so transformers builds no mask from `position_ids`."""
    import train.scores as scores

    model_inputs = scores.model_inputs
    scores.model_inputs = lambda batch, attention: {**model_inputs(batch, attention), "use_cache": True}


def accumulation_divided_twice() -> None:
    """The loss, already divided by the units of the whole window, is divided by the number of micro-batches too."""
    import train.loop as loop
    import train.step as step

    train_step, weighted = step.train_step, step._weighted
    length = 1

    def counted(engine: Any, module: Any, objective: Any, window: list[Any], **options: Any) -> Any:
        nonlocal length
        length = len(window)
        return train_step(engine, module, objective, window, **options)

    loop.train_step = counted
    step._weighted = lambda *arguments: weighted(*arguments) / length


def label_shifted_by_one() -> None:
    """Each label is predicted from its own position instead of the one to its left."""
    import data_pipelines.loader as loader

    collate = loader.collate

    def shifted(*arguments: Any) -> Any:
        batch = collate(*arguments)
        batch.target_index += 1
        return batch

    loader.collate = shifted


def stop_token_unlearned() -> None:
    """The mask of an assistant's turn ends before its end-of-turn token."""
    from data_pipelines.problems import RowProblem
    from data_pipelines.tokenize import Encoder, Tokens

    chat = Encoder._chat

    def cut(self: Encoder, rendered: Any, encoding: Any) -> Any:
        made = chat(self, rendered, encoding)
        if isinstance(made, RowProblem):
            return made
        return Tokens(made.ids, made.mask & np.append(made.mask[1:], False))

    Encoder._chat = cut  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (mean_of_means, use_cache, accumulation_divided_twice, label_shifted_by_one, stop_token_unlearned)
}
