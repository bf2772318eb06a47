"""Whole runs in which a loss jumps, a gradient is NaN or a rank is slow; what the guards make of it, on 1 and 2 ranks.

Also engines on which memory ran out while the micro-batch was looked for (rehearsed.py).

    python -m tests.distributed.guarded

Prints one line of JSON. The jump is a property of one row (its loss counts 40 times), so it is the same on any number of
ranks; it lies in global batch 14. Three runs that must agree: one that leaves the batch out when it comes, one that was
told beforehand to leave it out, one that was stopped after leaving it out and continued. A run that goes back meets a
second jump, in batch 17, before it has saved again: both batches stay left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from configs.runfolder import RunFolder, read_events, read_json, read_ledger, read_metrics, state_of
from tests.distributed.rehearsed import retried
from tests.kills.lab import Lab, only_run
from train.prove.forked import run_ranks

STEPS, SAVE_EVERY, BATCH, SPIKE, SECOND = 24, 5, 4, 14, 17
OPTIONS = (
    "data.sequence_length=64",
    "data.workers=1",
    "training.micro_batch_size=2",
    f"training.global_batch_size={BATCH}",
    f"training.duration={STEPS} steps",
    f"checkpoint.every={SAVE_EVERY} steps",
    "evaluation.every=end",
    "evaluation.replies=0",
    "optimizer.lr=1e-3",
    "lr_scheduler={name: constant, warmup: 0}",
    "guard.reference_check=false",
    "guard.spike_window=10",
)


@contextlib.contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Puts `make(what is there)` in the place of an attribute, for the ranks forked meanwhile."""
    before = getattr(owner, name)
    setattr(owner, name, make(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


def jumping(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the loss of some global batches count 40 times, by their first rows."""
    from train.objectives import Term

    rows = set(json.loads(Path(os.environ["SPIKE_ROWS"]).read_text()))

    def loss(self: Any, scores: Any, batch: Any) -> Any:
        factor = 40.0 if rows & set(batch.row_ids.tolist()) else 1.0
        return tuple(Term(term.name, term.sum * factor, term.unit) for term in plain(self, scores, batch))

    return loss


def told(positions: list[int]) -> Callable[[Any], Any]:
    """Makes a run know from its beginning what to leave out."""

    def make(plain: Callable[..., Any]) -> Callable[..., Any]:
        def train(parts: Any, state: Any) -> Any:
            state.leave_out(positions)
            return plain(parts, state)

        return train

    return make


def not_a_number(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Makes one gradient NaN on rank 1, in the backward pass of step 12."""

    def backward(self: Any, loss: Any, last: bool) -> None:
        from train.activity import CURRENT

        if CURRENT.step == 12 and self.dims.dp_rank == 1:
            parameter = list(self._named.values())[3]
            parameter.register_hook(lambda gradient: gradient * float("nan"))
        plain(self, loss, last)

    return backward


def slow(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Makes rank 1 read late."""
    import threading

    def window(self: Any, position: int) -> Any:
        if os.environ.get("RANK") == "1":
            threading.Event().wait(0.3)
        return plain(self, position)

    return window


def ended(run: RunFolder) -> dict[str, Any]:
    """Returns what a run left that must not depend on how it came there."""
    ledger, losses = read_ledger(run.path), [line for line in read_metrics(run.path) if "loss" in line]
    assert [line["step"] for line in ledger] == list(range(1, STEPS + 1))
    assert [line["step"] for line in losses] == list(range(1, STEPS + 1))
    return {
        "head": ledger[-1]["head"],
        "positions": [line["position"] for line in ledger],
        "losses": [line["loss"] for line in losses],
        "spikes": [event for event in read_events(run.path) if event["event"] == "spike"],
        "said": [path.read_text() for path in sorted(run.path.parent.glob("log-*-0"))],
    }


def failed(lab: Lab, folder: Path, world: int, *options: str) -> dict[str, Any]:
    """Runs what must fail; returns exit.json and how often it was said."""
    codes = lab.start(folder, world, *options).wait()
    end = read_json(only_run(folder).attempts()[-1].exit_path)
    assert end is not None and codes == [end["code"]] * world, (codes, end)
    said = "".join(path.read_text() for path in folder.glob("log-*"))
    return {**end, "said": said.count(f"failed: {end['cause']}"), "traceback": "Traceback" in said}


def continued(lab: Lab, folder: Path) -> RunFolder:
    """Stops a run after it has left the batch out, and continues it."""
    process = lab.start(folder, 1, "guard.spike=skip")
    assert process.until(lambda run: any(line["step"] > SPIKE + 1 for line in read_ledger(run.path)))
    process.send(signal.SIGTERM)
    assert process.wait() == [75]
    assert state_of(only_run(folder).path).state == "stopped"
    return lab.run(folder, 1, "guard.spike=skip")


def first_rows(run: RunFolder, *positions: int) -> list[int]:
    """Returns the rows that make these global batches jump."""
    from data_pipelines.index import Store
    from data_pipelines.order import Order

    start = run.attempts()[0].read_start()
    assert start is not None
    store = Store(Path(start["store_folder"]) / "train")
    assert store.num_rows > BATCH * (STEPS + 6), "each row comes once only"
    order = Order(store.num_rows, store.fingerprint, start["seed"], BATCH)
    return [int(order.rows(position)[0]) for position in positions]


def scenario(folder: Path) -> dict[str, Any]:
    """Runs everything."""
    os.environ["OMP_NUM_THREADS"] = "1"
    lab = Lab(folder, OPTIONS)
    from data_pipelines.loader import Loader
    from train import run as run_module
    from train.engines.ddp import DdpEngine
    from train.objectives.sft import Sft

    rows = folder / "rows"
    os.environ["SPIKE_ROWS"] = str(rows)
    found: dict[str, Any] = {"plain": ended(lab.run(folder / "plain", 1, "guard.spike=skip"))}
    plain = only_run(folder / "plain")
    rows.write_text(json.dumps(first_rows(plain, SPIKE)))
    with replaced(Sft, "loss", jumping):
        found["skip"] = ended(lab.run(folder / "skip", 1, "guard.spike=skip"))
        found["skip, 2 ranks"] = ended(lab.run(folder / "skip-2", 2, "guard.spike=skip"))
        found["skip, continued"] = ended(continued(lab, folder / "continued"))
        found["stop, 2 ranks"] = failed(lab, folder / "stop", 2, "guard.spike=stop")
    rows.write_text(json.dumps(first_rows(plain, SPIKE, SECOND)))
    with replaced(Sft, "loss", jumping):
        found["rollback, 2 ranks"] = ended(
            lab.run(folder / "rollback", 2, "guard.spike=rollback", "guard.spike_rewind=2")
        )
    with replaced(run_module, "train", told([SPIKE])):
        found["told to skip"] = ended(lab.run(folder / "told", 1, "guard.spike=skip"))
    with replaced(run_module, "train", told([*range(SPIKE - 2, SPIKE + 1), *range(SECOND - 2, SECOND + 1)])):
        found["told to skip six"] = ended(lab.run(folder / "told-6", 1, "guard.spike=skip"))
    with replaced(DdpEngine, "backward", not_a_number):
        found["not a number"] = failed(lab, folder / "nan", 2)
    with replaced(Loader, "window", slow):
        run = lab.run(folder / "slow", 2, "guard.straggler_window=4")
        lines = [line for line in read_metrics(run.path) if "slowest_rank" in line]
        found["slow"] = {
            "events": [event for event in read_events(run.path) if event["event"] == "straggler"],
            "slowest": [line["slowest_rank"] for line in lines],
        }
    found["retried"] = {name: run_ranks(2, retried, name) for name in ("ddp", "fsdp2")}
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(scenario(Path(temporary))))
