"""What makes a run save and stop: a signal, the file `stop`, the end of its job's time. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Callable

from configs.runfolder import Attempt
from train.deadline import Deadline
from train.signals import StopRequest

LOOK_EVERY_S = 1.0
BY_FILE, BY_DEADLINE = "the file `stop`", "the time limit is near"


def stop_poll(stop: StopRequest, attempt: Attempt, deadline: Deadline, is_main: bool) -> Callable[[], bool]:
    """Returns whether this rank wants to stop: after a signal, or (rank 0) when the file `stop` appeared or time is short.

    The file is looked for once a second: a look costs microseconds here, but milliseconds on a busy shared disk.
    """
    looked = 0.0

    def poll() -> bool:
        nonlocal looked
        now = time.monotonic()
        if is_main and not stop.wanted and deadline.is_near():
            stop.request(BY_DEADLINE)
        if is_main and now - looked >= LOOK_EVERY_S:
            looked = now
            if not stop.counts[BY_FILE] and attempt.stop_requested():
                stop.request(BY_FILE)
        return stop.wanted

    return poll


def kind_of_stop(stop: StopRequest) -> str:
    """Returns `user` when somebody asked this run to stop, `outside` for signals and limits: a job goes on after those."""
    return "user" if stop.counts[BY_FILE] or stop.counts["SIGINT"] else "outside"
