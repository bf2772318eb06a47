"""`aisc` whose phases are made longer by known times, on every rank:  python -m tests.slurm.planted VERB ...

$AISC_PLANT holds the seconds: `start-up=2 prepare=4 compile=5 train=0.5 evaluate=4 save=3 tail=3`; train is for each step,
evaluate and save for each of them, the others come once in an attempt. Rank 0 writes each pause that it has survived to
$AISC_RUN/planted.jsonl. A job's script is given it by `cluster.setup`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.jsonlines import append_line


def before(place: Any, name: str, phase: Callable[[], str], seconds: dict[str, float]) -> None:
    """Puts the pause of a phase before function `name` of a module or class."""
    function = getattr(place, name)

    def after_a_pause(*args: Any, **kwargs: Any) -> Any:
        began, now = time.time(), phase()
        time.sleep(seconds[now])
        if os.environ["SLURM_PROCID"] == "0":
            line = {"pid": os.getpid(), "phase": now, "began": began, "ended": time.time()}
            append_line(Path(os.environ["AISC_RUN"]) / "planted.jsonl", line)
        return function(*args, **kwargs)

    setattr(place, name, after_a_pause)


def plant(seconds: dict[str, float]) -> None:
    """Lengthens the phases of a training in this process."""
    from train import loop, run
    from train.checkpointer import Checkpointer
    from train.evaluate import Evaluator

    steps = 0

    def of_a_step() -> str:
        nonlocal steps
        steps += 1
        return "compile" if steps == 1 else "train"

    before(run, "read_inputs", lambda: "prepare", seconds)
    before(run, "build_learner", lambda: "start-up", seconds)
    before(run, "finish", lambda: "tail", seconds)
    before(loop, "train_step", of_a_step, seconds)
    before(Evaluator, "run", lambda: "evaluate", seconds)
    before(Checkpointer, "_copy", lambda: "save", seconds)


def main(arguments: list[str]) -> int:
    """Plants the times, then is `aisc`."""
    if arguments and arguments[0] == "train":
        plant({key: float(value) for key, _, value in (word.partition("=") for word in os.environ["AISC_PLANT"].split())})
    from cli.main import main as aisc

    return aisc(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
