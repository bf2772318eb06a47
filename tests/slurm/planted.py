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


def before(function: Callable[..., Any], seconds: Callable[[], float]) -> Callable[..., Any]:
    """Returns `function` with a pause before it."""

    def after_a_pause(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds())
        return function(*args, **kwargs)

    return after_a_pause


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

    once = {(run, "read_inputs"): "prepare", (run, "build_learner"): "start-up", (run, "finish"): "tail"}
    each = {(Evaluator, "run"): "evaluate", (Checkpointer, "_copy"): "save"}
    for (place, name), phase in {**once, **each}.items():
        setattr(place, name, before(getattr(place, name), lambda phase=phase: seconds[phase]))
    setattr(loop, "train_step", before(getattr(loop, "train_step"), of_a_step))  # noqa: B010, B009


def main(arguments: list[str]) -> int:
    """Plants the times, then is `aisc`."""
    if arguments and arguments[0] == "train":
        plant({key: float(value) for key, _, value in (word.partition("=") for word in os.environ["AISC_PLANT"].split())})
    from cli.main import main as aisc

    return aisc(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
