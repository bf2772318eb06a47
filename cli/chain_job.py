"""`aisc chain`: for the scripts of a chain's jobs, not for people: a stage begins from a verified model, it ends."""

from __future__ import annotations

import os
from pathlib import Path

from configs.errors import UserError
from launch.chain import ChainFolder, begin
from launch.chain_queue import end_job, refuse_job


def main(arguments: list[str]) -> int:
    """Runs one step; returns the exit code."""
    if len(arguments) != 3 or arguments[0] not in ("begin", "end"):
        raise UserError("aisc chain: for the scripts that aisc launch writes; expected begin|end CHAIN STAGE")
    chain, name = ChainFolder(Path(arguments[1])), arguments[2]
    if arguments[0] == "end":
        print(end_job(chain, name), flush=True)
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
