"""`aisc` whose phases are made longer by known times, on every rank:  python -m tests.slurm.planted VERB ...

$AISC_PLANT holds the seconds: `start-up=2 prepare=4 compile=5 train=0.5 evaluate=4 save=3 tail=3`; train is for each step,
evaluate and save for each of them, the others come once in an attempt. A job's script is given it by `cluster.setup`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any


def before(place: Any, name: str, seconds: Callable[[], float]) -> None:
    """Puts a pause before function `name` of a module or class."""
    function = getattr(place, name)

    def after_a_pause(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds())
        return function(*args, **kwargs)

    setattr(place, name, after_a_pause)


def plant(seconds: dict[str, float]) -> None:
    """Lengthens the phases of a training in this process."""
    from train import loop, run
    from train.checkpointer import Checkpointer
    from train.evaluate import Evaluator

    steps = 0

    def of_a_step() -> float:
        nonlocal steps
        steps += 1
        return seconds["compile"] if steps == 1 else seconds["train"]

    before(run, "read_inputs", lambda: seconds["prepare"])
    before(run, "build_learner", lambda: seconds["start-up"])
    before(run, "finish", lambda: seconds["tail"])
    before(loop, "train_step", of_a_step)
    before(Evaluator, "run", lambda: seconds["evaluate"])
    before(Checkpointer, "_copy", lambda: seconds["save"])


def main(arguments: list[str]) -> int:
    """Plants the times, then is `aisc`."""
    if arguments and arguments[0] == "train":
        plant({key: float(value) for key, _, value in (word.partition("=") for word in os.environ["AISC_PLANT"].split())})
    from cli.main import main as aisc

    return aisc(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
