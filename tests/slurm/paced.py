"""`aisc` whose phases last long enough to be met from outside:  python -m tests.slurm.paced VERB ...

$AISC_PACE says for how long at least: `step=0.1 evaluation=0.3 save=0.5`, in seconds for each step, each batch of an
evaluation, each file of a save; and each rank says in which phase a signal met it. Nothing else changes. A job's script is given it by `cluster.setup` (see survival.py).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Returns `function` with a pause before it."""

    def after_a_pause(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return function(*args, **kwargs)

    return after_a_pause


def slow_down(pace: dict[str, float]) -> None:
    """Lengthens the phases of a training in this process."""
    from train import activity, checkpoint_files
    from train.evaluate import Evaluator

    activity.begin_step = slowed(activity.begin_step, pace.get("step", 0.0))
    checkpoint_files._write_rank_file = slowed(checkpoint_files._write_rank_file, pace.get("save", 0.0))
    batches = Evaluator.batches

    def slowed_batches(evaluator: Evaluator) -> Iterator[Any]:
        for batch in batches(evaluator):
            time.sleep(pace.get("evaluation", 0.0))
            yield batch

    Evaluator.batches = slowed_batches  # type: ignore


def say_phases() -> None:
    """Makes this process print the phase in which a signal finds it."""
    from train import activity
    from train.signals import StopRequest

    receive = StopRequest._receive

    def say_and_receive(self: StopRequest, number: int, frame: FrameType | None) -> None:
        is_saving = any(thread.name == "checkpoint" for thread in threading.enumerate())
        phase = "save" if is_saving else activity.CURRENT.phase
        phase = "step" if phase in ("data", "forward", "backward", "optimizer") else phase
        rank = os.environ.get("SLURM_PROCID", "0")
        os.write(2, f"rank {rank}: {signal.Signals(number).name} in {phase}\n".encode())
        receive(self, number, frame)

    StopRequest._receive = say_and_receive  # type: ignore[method-assign]


def main(arguments: list[str]) -> int:
    """Slows down, then is `aisc`."""
    pace = {key: float(value) for key, _, value in (word.partition("=") for word in os.environ.get("AISC_PACE", "").split())}
    if arguments and arguments[0] == "train" and pace:
        slow_down(pace)
        say_phases()
    from cli.main import main as aisc

    return aisc(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
