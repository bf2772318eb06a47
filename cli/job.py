"""`aisc job`: for the scripts of `aisc launch`, not for people: a start begins, its nodes are looked at, it ends."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from configs.errors import UserError
from launch.job import begin, end
from launch.stage_job import begin_stage, end_stage

STEPS = {"begin": 1, "check": 1, "end": 2, "search": 1, "stage-begin": 2, "stage-end": 3}


def main(arguments: list[str]) -> int:
    """Runs one step; returns the exit code."""
    step, given = (arguments[0], arguments[1:]) if arguments else ("", [])
    if len(given) != STEPS.get(step, -1):
        raise UserError("aisc job: for the scripts that aisc launch writes; expected " + ", ".join(STEPS))
    run = Path(given[0])
    if step == "begin":
        print(int(begin(run, os.environ)))
        return 0
    if step == "end":
        ended, said = end(run, int(given[1]), os.environ)
        print(said, flush=True)
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
    # A node that does not answer is named in one sentence; torch would show its own stack for each rank that waited.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    code: int = importlib.import_module("train.nodecheck").main(run)
    return code
