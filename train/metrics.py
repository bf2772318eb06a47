"""Figures of a run: metrics.jsonl always, TensorBoard, W&B (offline) and MLflow (local files) when asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from configs.jsonlines import LineFile
from configs.schema import TrackerSection


class Tracker(Protocol):
    """Somewhere figures go."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of one step."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


class Metrics:
    """Writes one line per `tracker.every` steps, per evaluation and per save; only rank 0 has one that writes.

    Args:
        path: metrics.jsonl of the attempt, or None on ranks that write nothing.
        section: how often, and which trackers.
        trackers: opened by `open_trackers`.
    """

    def __init__(self, path: Path | None, section: TrackerSection, trackers: list[Tracker] | None = None) -> None:
        self._every = section.every
        self._trackers = trackers or []
        self._file = LineFile(path) if path is not None else None
        self._last_tokens: int | None = None
        self._last_time = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Returns whether the figures of `step` are recorded; the same on every rank."""
        return step % self._every == 0

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        """Records the figures of one update; adds tokens per second since the last line."""
        if self._file is None or not self.is_due(step):
            return
        now, tokens = time.monotonic(), int(values["tokens"])
        rate = {}
        if self._last_tokens is not None and now > self._last_time:
            rate["tokens_per_s"] = round((tokens - self._last_tokens) / (now - self._last_time), 1)
        self._last_tokens, self._last_time = tokens, now
        self._write(step, {**values, **rate})

    def evaluation(self, step: int, values: Mapping[str, Any]) -> None:
        """Records the figures of one evaluation."""
        self._last_tokens = None
        self._write(step, values)

    def rewind(self, step: int) -> None:
        """Takes back what was recorded after `step`; trackers elsewhere keep it."""
        self._last_tokens = None
        if self._file is not None:
            self._file.keep_until(step)

    def save(self, step: int, values: Mapping[str, Any]) -> None:
        """Records the figures of one save."""
        self._last_tokens = None
        self._write(step, values)

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        self._file.append({"step": step, **values, "time": round(time.time(), 3)})
        if self._trackers:
            numbers = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
            for tracker in self._trackers:
                tracker.log(step, numbers)

    def close(self) -> None:
        """Closes the file and the trackers."""
        for tracker in self._trackers:
            tracker.close()
        if self._file is not None:
            self._file.close()
            self._file = None
