"""The reference model's pass over the documents: shown, stopped after any batch, taken up where it was left.

Legend: D documents of a part of the store.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from data_pipelines.collate import Batch, collate
from data_pipelines.index import Store
from train.activity import enter
from train.distributed import sum_over_ranks
from train.evaluate import Evaluator
from train.inference import inference
from train.progress import PLAIN_LINE_EVERY_S, spell_time


@dataclass(frozen=True, slots=True)
class Column:
    """What is known of a part's documents, alike on every rank.

    Attributes:
        sums: `[D]` float64, the reference's log-probability of the labelled tokens; 0 where it is not known.
        done: `[D]`, where it is known.
    """

    sums: NDArray[np.float64]
    done: NDArray[np.bool_]

    @classmethod
    def empty(cls, store: Store) -> Column:
        """Returns a column of which nothing is known."""
        return cls(np.zeros(store.num_documents), np.zeros(store.num_documents, np.bool_))

    @property
    def is_complete(self) -> bool:
        return bool(self.done.all())


def log_probabilities(module: nn.Module, evaluator: Evaluator) -> NDArray[np.float64]:
    """Returns the sum of the log-probabilities of each document's labelled tokens, `[D]`, on every rank."""
    return advance(module, evaluator, Column.empty(evaluator.store)).sums


def advance(
    module: nn.Module,
    evaluator: Evaluator,
    begun: Column,
    stop_wanted: Callable[[], bool] | None = None,
    show: Callable[[int], None] | None = None,
) -> Column:
    """Returns the column with what was missing in `begun`. Every rank calls it.

    Args:
        module: scores; without dropout whatever its mode.
        evaluator: says which rows are this rank's.
        begun: what is known already.
        stop_wanted: asked on every rank after each batch; when one says yes all stop there, and the column has gaps.
        show: told of the rows that all ranks did, batch by batch.
    """
    sums, done = np.zeros(len(begun.done)), np.zeros(len(begun.done), np.bool_)
    with inference(module):
        for batch, num_rows in _batches(evaluator, rows_left(evaluator.store, begun)):
            enter("prepare")
            scores = module(batch).double()
            per_document = torch.zeros(len(batch.document_ids), dtype=torch.float64, device=scores.device)
            per_document.index_add_(0, batch.target_document, scores)
            real = batch.document_ids >= 0
            sums[batch.document_ids[real]] = per_document.cpu().numpy()[real]
            done[batch.document_ids[real]] = True
            if show is not None:
                show(num_rows)
            if stop_wanted is not None and sum_over_ranks([float(stop_wanted())])[0] > 0:
                break
    shared = np.array(sum_over_ranks([*sums.tolist(), *done.astype(float).tolist()])).reshape(2, -1)
    return Column(begun.sums + shared[0], begun.done | (shared[1] > 0))


def rows_left(store: Store, column: Column) -> NDArray[np.int64]:
    """Returns the rows that hold a document of which nothing is known."""
    gaps = np.add.reduceat((~column.done).astype(np.int64), store.row_offsets[:-1])
    return np.flatnonzero(gaps)


def _batches(evaluator: Evaluator, rows: NDArray[np.int64]) -> Iterator[tuple[Batch, int]]:
    """Yields this rank's micro-batches of `rows`, and the rows of all ranks' together; every rank yields equally many."""
    stride = evaluator.dims.dp_size * evaluator.micro_batch_size
    for begin in range(0, len(rows), stride):
        part = np.full(stride, -1, np.int64)
        part[: len(rows) - begin] = rows[begin : begin + stride]
        own = part.reshape(evaluator.dims.dp_size, -1)[evaluator.dims.dp_rank]
        yield collate(evaluator.store, own, evaluator.pad_token_id).to(evaluator.device), int((part >= 0).sum())


@contextlib.contextmanager
def pass_progress(console: Console | None, total: int) -> Iterator[Callable[[int], None]]:
    """Yields what takes rows as they are done: a bar on a terminal, elsewhere a line now and then; None shows nothing."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    is_terminal = console is not None and console.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    began = said = time.monotonic()
    done = 0
    with Progress(*columns, console=console, transient=True, disable=not is_terminal) as bar:
        task = bar.add_task("reference", total=total)

        def report(rows: int) -> None:
            nonlocal done, said
            done += rows
            bar.update(task, completed=done)
            now = time.monotonic()
            if console is not None and not is_terminal and now - said >= PLAIN_LINE_EVERY_S:
                said = now
                left = spell_time((now - began) / done * (total - done))
                console.print(f"reference  {done:,}/{total:,} rows  {left} left", highlight=False, soft_wrap=True)

        yield report
