"""Signals that ask a run to save and stop. Torch-free.

SIGTERM, SIGUSR1, SIGUSR2 and the first SIGINT raise a flag that the loop reads after each step. Repeats are counted and
otherwise ignored (Slurm sends SIGTERM twice at a time limit; a terminal's Ctrl-C reaches a worker directly and through
its launcher). Only a SIGINT a second or more after the first one leaves at once, with exit code 130.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
SECOND_INTERRUPT_AFTER_S = 1.0
EXIT_INTERRUPTED = 130


class StopRequest:
    """Holds whether this process was asked to stop, and by what.

    Args:
        on_first: called once, inside the signal handler, with the signal's name; must be short (one line to a screen).
        leave: called at the interrupt that leaves at once; the default ends the process with code 130.
    """

    def __init__(
        self,
        on_first: Callable[[str], None] | None = None,
        leave: Callable[[], None] = lambda: os._exit(EXIT_INTERRUPTED),
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._on_first = on_first
        self._leave = leave
        self._first_interrupt_s: float | None = None
        self._wanted = False

    @property
    def wanted(self) -> bool:
        """True from the first request on."""
        return self._wanted

    @property
    def cause(self) -> str:
        """Names of the signals received and how often, e.g. `SIGTERM x2`; empty without any."""
        return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in self.counts.items())

    def install(self) -> StopRequest:
        """Takes over the four signals of this process (main thread only); returns itself."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._receive)
        return self

    def request(self, cause: str) -> None:
        """Asks for a stop from inside the process, for example because the file `stop` appeared."""
        self.counts[cause] += 1
        first, self._wanted = not self._wanted, True
        if first and self._on_first is not None:
            self._on_first(cause)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._first_interrupt_s is None:
                self._first_interrupt_s = now
            elif now - self._first_interrupt_s >= SECOND_INTERRUPT_AFTER_S:
                self._leave()
        self.request(signal.Signals(number).name)
