"""`aisc job`: for the scripts of `aisc launch`, not for people: a start begins, its nodes are looked at, it ends."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from pathlib import Path

from configs.compose import thaw
from configs.errors import LaunchError, UserError
from data_pipelines.index import find_prepared
from launch.goodput import goodput, write_goodput
from launch.job import EXIT_CONTINUE, begin, end
from launch.stage_job import after_training, begin_stage, end_stage
from launch.staging import stage_in

STEPS = {"begin": 1, "check": 1, "end": 2, "search": 1, "stage-begin": 2, "stage-end": 3, "stage-in": 2}


def main(arguments: list[str]) -> int:
    """Runs one step; returns the exit code."""
    step, given = (arguments[0], arguments[1:]) if arguments else ("", [])
    if len(given) != STEPS.get(step, -1):
        raise UserError("aisc job: for the scripts that aisc launch writes; expected " + ", ".join(STEPS))
    run = Path(given[0])
    if step == "begin":
        try:
            print(int(begin(run, os.environ)))
        except LaunchError:
            after_training(run, os.environ)
            raise
        return 0
    if step == "end":
        ended, said = end(run, int(given[1]), os.environ)
        print("\n".join([said, *after_training(run, os.environ)]), flush=True)
        if ended != EXIT_CONTINUE:
            account(run)
        return ended
    if step == "search":
        searched: int = importlib.import_module("cli.sweep").control(run, os.environ)
        return searched
    if step == "stage-begin":
        begin_stage(run, given[1], os.environ)
        return 0
    if step == "stage-end":
        ended, said = end_stage(run, given[1], int(given[2]), os.environ)
        print(said, flush=True)
        return ended
    if step == "stage-in":
        print(stage_in(Path(given[1]), folders_to_stage(run)), flush=True)
        return 0
    # A node that does not answer is named in one sentence; torch would show its own stack for each rank that waited.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    code: int = importlib.import_module("train.nodecheck").main(run)
    return code


def folders_to_stage(run: Path) -> dict[str, Path]:
    """Returns the folders that the ranks of `run` will read: the model's, and the prepared data's when it is built."""
    config = thaw((run / "launch.yaml").read_text(encoding="utf-8"))
    found = {"model": Path(config.model.path).expanduser()} if config.model.path else {}
    tokenizer = str(Path(config.model.tokenizer or config.model.path or "").expanduser())
    store = find_prepared(config.data, config.objective.name, tokenizer, seed=config.training.seed)
    return {**found, **({"store": store} if store is not None else {})}


def account(run: Path) -> None:
    """Leaves goodput.json in the run folder; how a job ends never depends on it."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        write_goodput(run, goodput(run, now=time.time()))
