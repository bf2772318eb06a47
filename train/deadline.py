"""When a run must stop to have saved before Slurm ends its job. It learns how long a save takes here. Torch-free."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

ENVIRONMENT = "AISC_DEADLINE"
# Of the save and the step, measured: a busy file system may need twice as long next time.
SAFETY = 2.0
MOST_UNKNOWN_S = 600.0
# From the last rank's save to the job being requeued: processes end, one more starts and asks the controller.
END_S = 30.0
UNKNOWN_SHARE = 0.1


@dataclass(slots=True)
class Deadline:
    """Tells when the time that is left is what saving takes.

    Args:
        at: when Slurm ends the job, in seconds since 1970; None: no limit.
        save_s: the longest save that this run has seen, from the copy to the published checkpoint; None: not yet one.
        clock: seconds since 1970.
    """

    at: float | None
    save_s: float | None = None
    clock: Callable[[], float] = time.time
    _began: float = 0.0
    _longest_s: float = 0.0
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._began = self._last = self.clock()

    @classmethod
    def from_environment(cls, events: Iterable[dict[str, Any]]) -> Deadline:
        """Returns the deadline of this job, with what earlier attempts' events say of saves; none outside a job."""
        text = os.environ.get(ENVIRONMENT, "")
        at = float(text) if text.isdigit() else None
        seconds = [float(e["seconds"]) + float(e.get("stall_s", 0.0)) for e in events if e.get("event") == "saved" and "seconds" in e]
        return cls(at, max(seconds[-10:], default=None))

    def saved(self, seconds: float) -> None:
        """Takes in how long a save took."""
        self.save_s = max(self.save_s or 0.0, seconds)

    @property
    def margin_s(self) -> float:
        """Seconds before the end at which to stop: what a save and the longest wait between two looks take, twice.

        Before the first save a tenth of the whole time stands for it, at most 10 min. Ending takes half a minute more.
        """
        if self.save_s is None:
            save_s = min(MOST_UNKNOWN_S, UNKNOWN_SHARE * ((self.at or self._began) - self._began))
            return END_S + save_s + self._longest_s
        return END_S + SAFETY * (self.save_s + self._longest_s)

    def is_near(self) -> bool:
        """True when it is time to stop; to be asked between two steps and between two batches of an evaluation."""
        now = self.clock()
        self._longest_s = max(self._longest_s, now - self._last)
        self._last = now
        return self.at is not None and now >= self.at - self.margin_s
