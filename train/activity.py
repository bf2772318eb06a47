"""What this process is doing right now: a few words that the watchdog reads from its thread. Standard library only.

One process is one rank, so there is one activity. Noting a phase costs a tenth of a microsecond, on rank 0 about one:
it has a listener (train/phases.py).
"""

from __future__ import annotations

from collections.abc import Callable

# In these one rank may work for long while the others wait, or nothing comes back before a whole file is written.
SLOW_PHASES = ("first step", "replies", "save", "load", "export")


class Activity:
    """The update under way, the phase of it, the collective that was entered last, and what has been begun so far.

    `count` moves alike on all ranks; `signs` moves with what one rank does alone; `listener` is told of each phase.
    """

    __slots__ = ("collective", "count", "first_step", "listener", "phase", "signs", "step")

    def __init__(self) -> None:
        self.step = 0
        self.first_step = 0
        self.phase = "start"
        self.collective = ""
        self.count = 0
        self.signs = 0
        self.listener: Callable[[Activity], None] | None = None

    @property
    def is_slow(self) -> bool:
        """True where no sign of progress for a while means nothing yet; compilation falls into the first step."""
        return self.phase in SLOW_PHASES or self.step <= self.first_step


CURRENT = Activity()


def enter(phase: str) -> None:
    """Notes what begins now: start, prepare, data, forward, backward, optimizer, evaluation, replies, save, load, export, end."""
    CURRENT.phase = phase
    CURRENT.count += 1
    if CURRENT.listener is not None:
        CURRENT.listener(CURRENT)


def sign() -> None:
    """Notes that this rank gets on with something that the others do not do."""
    CURRENT.signs += 1


def begin_at(step: int) -> None:
    """Notes that this attempt begins after `step` updates."""
    CURRENT.step = CURRENT.first_step = step + 1
    CURRENT.collective = ""


def begin_step(step: int) -> None:
    """Notes that update number `step` begins, with its data."""
    CURRENT.step = step
    enter("data")


def begin_collective(name: str) -> None:
    """Notes that all ranks are to meet in `name`; the name stays when the meeting fails."""
    CURRENT.collective = name
    CURRENT.count += 1


def end_collective() -> None:
    """Notes that they have met."""
    CURRENT.collective = ""
    CURRENT.count += 1
