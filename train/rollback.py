"""Back to the newest checkpoint in the middle of a run: weights, optimizer, random state, run state, and the files.

Metrics and ledger of this attempt lose the steps that are taken back, so that each step is there once; events.jsonl
keeps what happened.
"""

from __future__ import annotations

from pathlib import Path

from configs.runfolder import RunFolder
from train import activity, checkpoint
from train.checkpoint import LoadsState
from train.checkpoint_reading import find_latest, open_checkpoint
from train.distributed import Context, broadcast_json
from train.state import RunState


def roll_back(run: RunFolder, engine: LoadsState, context: Context, seed: int, state: RunState) -> bool:
    """Loads the newest checkpoint that verifies, into `engine` and `state`; every rank calls it. False without one.

    What was left out since that checkpoint stays left out: the run would meet the same spikes again, in turn.
    """
    activity.enter("load")
    found = None
    if context.is_main and (newest := find_latest(run)[0]) is not None:
        found = [str(newest.folder), newest.attempt]
    found = broadcast_json(found)
    if found is None:
        return False
    saved = open_checkpoint(Path(found[0]), found[1], is_verified=True)
    left_out = state.skip
    state.restore(checkpoint.load(saved, engine, context, seed=seed))
    state.leave_out(left_out)
    return True
