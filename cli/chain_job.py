"""`aisc chain`: for the scripts of a chain's jobs, not for people: a stage begins from a verified model, it ends."""

from __future__ import annotations

import os
from pathlib import Path

from configs.errors import UserError
from launch.chain import ChainFolder, begin
from launch.chain_queue import end_job, refuse_job

# Words after each step; a job that waited while this program was renewed says no code.
STEPS = {"begin": (2,), "end": (2, 3)}


def main(arguments: list[str]) -> int:
    """Runs one step; returns the exit code."""
    step, given = (arguments[0], arguments[1:]) if arguments else ("", [])
    if step not in STEPS or len(given) not in STEPS[step] or (step == "end" and "SLURM_JOB_ID" not in os.environ):
        raise UserError("aisc chain: for the scripts that aisc launch writes; expected, in a job: begin CHAIN STAGE, or end CHAIN STAGE CODE")
    chain, name = ChainFolder(Path(given[0])), given[1]
    if step == "end":
        print(end_job(chain, name, int(given[2]) if len(given) > 2 else None, os.environ), flush=True)
        return 0
    try:
        begin(chain, name)
    except UserError as error:
        text = str(error)
        indented = text.replace("\n", "\n  ")
        print(f"error: {indented}", flush=True)  # the record's cause is read from the job's output
        code, said = refuse_job(chain, name, text.splitlines()[0], os.environ)
        print(said, flush=True)
        return code
    return 0
