"""A function over many chunks in several processes: results in the order of the chunks, never more than a few in flight."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from configs.errors import RunFailed

T = TypeVar("T")
_IN_FLIGHT = 3

# The function the children run: set before the fork, so that nothing (tokenizer, compiled template) is copied to them.
_work: Callable[[Any], Any] | None = None


def num_workers(asked: int) -> int:
    """Returns the number of processes: `asked`, or the cores this process may use when it is 0."""
    return asked or len(os.sched_getaffinity(0))


def map_ordered(work: Callable[[Any], T], tasks: Iterable[Any], processes: int) -> Iterator[T]:
    """Yields `work(task)` for each task, in order; with one process it runs here.

    Raises:
        RunFailed: a process was killed (most often for memory).
    """
    with serial_tokenizers():
        if processes <= 1:
            yield from map(work, tasks)
        else:
            yield from _map_forked(work, tasks, processes)


def _map_forked(work: Callable[[Any], T], tasks: Iterable[Any], processes: int) -> Iterator[T]:
    global _work
    _work = work
    pending: deque[Future[T]] = deque()
    try:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
            try:
                for task in tasks:
                    pending.append(pool.submit(_run, task))
                    if len(pending) >= _IN_FLIGHT * processes:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
    except BrokenProcessPool as error:
        raise RunFailed(
            "a process that reads the data was killed, most often for memory; data.workers=N with a smaller N needs less"
        ) from error
    finally:
        _work = None


def _run(task: Any) -> Any:
    assert _work is not None
    return _work(task)


@contextlib.contextmanager
def serial_tokenizers() -> Iterator[None]:
    """Switches the tokenizer library's own threads off: forked children would wait for them for ever."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
