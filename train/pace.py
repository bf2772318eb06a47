"""How long each rank computes for a step, without its waits for the others; who is slower than all, for how long.

A rank's own time runs from the start of its step to the exchange of the units, and from there to the exchange of the
losses before the last backward pass: reading, all forward passes, all backward passes but the last. The last one ends in
the exchange of gradients, where every rank takes as long as the slowest. Engines that gather weights in each forward
pass (zero3, fsdp2) wait inside it too: there the times of the ranks come closer together than the ranks are.

The times of one step ride on the exchange of units of the next: no collective is added.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

# A rank is named after it was slow in this many windows in a row: a moment's disturbance is no straggler.
WINDOWS = 3
# Differences below this are noise of the machine, whatever the ratio.
LEAST_DIFFERENCE_S = 0.005


@dataclass(frozen=True, slots=True)
class Straggler:
    """A rank that was slower than the median of the others, in seconds per step over the last window."""

    rank: int
    own_s: float
    others_s: float

    @property
    def ratio(self) -> float:
        """How many times slower."""
        return self.own_s / self.others_s if self.others_s else float("inf")


class Pace:
    """Own time of this rank, and the times of all ranks.

    Args:
        rank, world: this rank's place; a world of one measures nothing.
        ratio: slower than this many times the median of the others is slow; 0: nobody is named.
        window: steps that are averaged.
    """

    def __init__(self, rank: int, world: int, *, ratio: float = 0.0, window: int = 50) -> None:
        self.rank, self.world = rank, world
        self._ratio, self._window = ratio, window
        self._own_s, self._since_s, self._previous_s = 0.0, 0.0, 0.0
        self._sums, self._steps = [0.0] * world, 0
        self._slow_windows = [0] * world
        self._named: set[int] = set()

    def begin(self) -> None:
        """Starts the own time of a step."""
        self._previous_s, self._own_s = self._own_s, 0.0
        self._since_s = time.perf_counter()

    def pause(self) -> None:
        """Stops the clock before a meeting of all ranks."""
        self._own_s += time.perf_counter() - self._since_s

    def resume(self) -> None:
        """Starts it again after the meeting."""
        self._since_s = time.perf_counter()

    def slots(self) -> list[float]:
        """Returns what this rank adds to the exchange: its time of the step before, in its own place."""
        if self.world == 1:
            return []
        values = [0.0] * self.world
        values[self.rank] = self._previous_s
        return values

    def figures(self, times: list[float]) -> dict[str, float | int]:
        """Returns the figures for metrics.jsonl of all ranks' times of one step, in seconds."""
        if not any(times):
            return {}
        slowest = max(range(len(times)), key=times.__getitem__)
        return {
            "step_time_max": round(times[slowest], 6),
            "step_time_median": round(statistics.median(times), 6),
            "slowest_rank": slowest,
        }

    def take(self, times: list[float]) -> list[Straggler]:
        """Adds one step's times of all ranks; returns the stragglers that are to be named now, each once until it recovers."""
        if not self._ratio or not any(times):
            return []
        self._sums = [total + own for total, own in zip(self._sums, times, strict=True)]
        self._steps += 1
        if self._steps < self._window:
            return []
        means = [total / self._steps for total in self._sums]
        self._sums, self._steps = [0.0] * self.world, 0
        return [found for rank in range(self.world) if (found := self._judge(rank, means)) is not None]

    def _judge(self, rank: int, means: list[float]) -> Straggler | None:
        found = Straggler(rank, means[rank], statistics.median(means[:rank] + means[rank + 1 :]))
        if found.ratio <= self._ratio or found.own_s - found.others_s < LEAST_DIFFERENCE_S:
            self._slow_windows[rank] = 0
            self._named.discard(rank)
            return None
        self._slow_windows[rank] += 1
        if self._slow_windows[rank] < WINDOWS or rank in self._named:
            return None
        self._named.add(rank)
        return found
