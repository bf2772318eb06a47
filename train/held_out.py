"""Held-out loss item by item: of documents for a likelihood, of pairs for a preference. One process.

D documents of a store's part, n items: a document cut into several by packing counts as the one row that it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from data_pipelines.index import Store
from train.evaluate import Evaluator
from train.evaluation_file import TaskScore
from train.inference import inference
from train.intervals import Difference, Figure, Floats, compare_means, compare_ratios, mean_figure, ratio_figure
from train.objectives import Sft, look_at_window

LOSS, PERPLEXITY = "loss", "perplexity"


@dataclass(frozen=True, slots=True)
class Items:
    """What was measured.

    Attributes:
        ids: `SOURCE:ROW` of each item. source: index into `sources`.
        values: `[n]` by name; with `tokens`, `loss` is a sum of nats over an item's tokens, else a value an item.
        tokens: `[n]` learned tokens; None for preferences.
    """

    ids: list[str]
    source: NDArray[np.int64]
    sources: list[str]
    values: dict[str, Floats]
    tokens: Floats | None


def measure(evaluator: Evaluator, module: nn.Module) -> Items:
    """Returns the items of the evaluator's store for the prepared scores `module`."""
    return _documents(evaluator, module) if isinstance(evaluator.objective, Sft) else _pairs(evaluator, module)


def _documents(evaluator: Evaluator, module: nn.Module) -> Items:
    from train.reference_pass import log_probabilities

    store = evaluator.store
    nats = -log_probabilities(module, evaluator)
    rows = np.stack([store.document_source.astype(np.int64), store.document_row.astype(np.int64)])
    unique, number = np.unique(rows, axis=1, return_inverse=True)
    number = number.reshape(-1)
    size = unique.shape[1]
    losses = np.bincount(number, weights=nats, minlength=size).astype(np.float64)
    tokens = np.bincount(number, weights=store.document_targets, minlength=size).astype(np.float64)
    kept = tokens > 0
    return Items(_ids(store, unique[:, kept]), unique[0, kept], list(store.sources), {LOSS: losses[kept]}, tokens[kept])


def _pairs(evaluator: Evaluator, module: nn.Module) -> Items:
    sources: list[NDArray[np.int64]] = []
    values: dict[str, list[Floats]] = {}
    look_at_window(evaluator.objective, module, evaluator.batches())
    with inference(module):
        for batch in evaluator.batches():
            measured = evaluator.objective.measure(module(batch), batch)
            sources.append(measured.source)
            for name, found in measured.values.items():
                values.setdefault(name, []).append(found)
    source = np.concatenate(sources)
    ids = [f"{evaluator.store.sources[int(s)]}:{number}" for number, s in enumerate(source)]
    return Items(ids, source, list(evaluator.store.sources), {name: np.concatenate(found) for name, found in values.items()}, None)


def _ids(store: Store, rows: NDArray[np.int64]) -> list[str]:
    return [f"{store.sources[int(source)]}:{int(row)}" for source, row in rows.T]


def as_task(items: Items, name: str, data: dict[str, str]) -> TaskScore:
    """Returns the figures of `items`, in total and by source where there are several, with an interval each."""
    figures: dict[str, Figure] = {}
    everything = np.ones(len(items.ids), dtype=bool)
    parts = [("", everything)]
    if len(np.unique(items.source)) > 1:
        parts += [(f"/{items.sources[int(i)]}", items.source == i) for i in np.unique(items.source)]
    for suffix, chosen in parts:
        for metric, values in items.values.items():
            if items.tokens is None:
                figures[metric + suffix] = mean_figure(values[chosen])
            else:
                loss = ratio_figure(values[chosen], items.tokens[chosen])
                figures[LOSS + suffix], figures[PERPLEXITY + suffix] = loss, perplexity(loss)
    per_item = {metric: values if items.tokens is None else values / items.tokens for metric, values in items.values.items()}
    listed = {metric: list(zip(items.ids, values.tolist(), strict=True)) for metric, values in per_item.items()}
    if items.tokens is not None:
        listed["tokens"] = list(zip(items.ids, items.tokens.tolist(), strict=True))
    return TaskScore(name, "held_out", figures, listed, data=data)


def perplexity(loss: Figure) -> Figure:
    """Returns exp of a loss and of its interval; the standard error by the delta method."""
    value, low, high = (math.exp(min(x, 700)) for x in (loss.value, loss.low, loss.high))
    return Figure(value, value * loss.stderr, low, high, loss.n)


def compare(first: Items, second: Items) -> dict[str, Difference]:
    """Returns how `first` differs from `second` on the same items; a loss per token of the second's tokenizer."""
    if first.ids != second.ids:
        raise AssertionError("the two models were measured on other items")
    if first.tokens is None or second.tokens is None:
        return {name: compare_means(first.values[name], second.values[name]) for name in first.values if name in second.values}
    return {LOSS: compare_ratios(first.values[LOSS], second.values[LOSS], second.tokens)}
