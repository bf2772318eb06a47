"""What the queue can do to a run, in full counts:  python -m tests.slurm.scenarios NAME [COUNT]

    requeued, preempted     at COUNT moments each in start, step, evaluation and save
    chained                 COUNT preemptions of one run, one after another
    limited                 a time limit shorter than the run
    cut                     the cable of the first node, then of another, pulled during a save
    restarted               the controller away while a run steps, and while it wants to be requeued
    sharded                 ZeRO-2: requeued, preempted, a node killed

Each run must end as the undisturbed one: ledger head, every loss bitwise. Prints one line of JSON: what was counted.
The first three take as many portions of 25 minutes as they need: the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.runfolder import read_json
from tests.slurm.cluster import ROOT, temporary
from tests.slurm.processes import wait_until
from tests.slurm.survival import DROPOUT, PATIENCE_S, SAVE_EVERY, STEPS, Bench, Run, contents, facts_of, steps_redone

MOMENTS = ("start", "step", "evaluation", "save")
# A shard ends by itself before half an hour is over; what it has done is kept here.
PORTION_S = 1500.0
KEPT = ROOT / ".cache" / "slurm-soak"
SEED = 3
PACE = "step=0.2 evaluation=0.4 save=0.3"


def undisturbed(bench: Bench, name: str, *options: str, steps: int = STEPS) -> dict[str, Any]:
    """Returns the facts of a run on two nodes that nothing befell."""
    return facts_of(bench.launch(name, 2, 1, DROPOUT, "cluster.check_nodes=false", *options).finish().folder, steps)


def requeued(bench: Bench, count: int) -> dict[str, Any]:
    """An administrator's requeue, `count` times in each phase."""
    sizes = ("checkpoint.every=3 steps", "evaluation.every=4 steps")
    return disturbed(bench, "requeued", 4 * count, Run.requeue, "step=0.1 evaluation=0.3 save=1", 16 + 12 * count, sizes)


def preempted(bench: Bench, count: int) -> dict[str, Any]:
    """A more important job, `count` times in each phase; it takes a second or two to arrive, so phases last longer."""
    # Saves far enough apart that there is something else to meet.
    sizes = ("checkpoint.every=10 steps", "evaluation.every=7 steps")
    return disturbed(bench, "preempted", 4 * count, Run.preempt, "step=0.6 evaluation=1 save=3", 20 + 40 * count, sizes)


def disturbed(
    bench: Bench, name: str, count: int, disturb: Callable[[Run], None], pace: str, steps: int, every: tuple[str, ...]
) -> dict[str, Any]:
    """One run disturbed `count` times, in each phase in turn: a start in vain is followed by one with progress."""

    def befall(run: Run, restart: int, number: int) -> None:
        chance, moment = random.Random(f"{SEED} {number}"), MOMENTS[number % 4]
        if moment == "start":
            _wait_for_start(run, restart)
            time.sleep(chance.uniform(0.0, 8.0))
        else:
            run.wait_for(moment, restart=restart, past_step=run.saved_step + 1)
            time.sleep(chance.uniform(0.0, 0.2))
        disturb(run)

    run = in_portions(bench, name, count, befall, pace, steps, every)
    redone = steps_redone(run.folder)
    assert max(redone) <= 1, redone
    # Each job has one start that ends otherwise: the last one's is the end, the others' a stop between two portions.
    jobs = len({start.job_id for start in run.starts})
    assert len(run.starts) == count + jobs, run.starts
    return {"disturbed": count, "met": run.met(), "attempts": len(redone) + 1, "steps_redone": max(redone), "portions": jobs}


def chained(bench: Bench, count: int) -> dict[str, Any]:
    """One run preempted `count` times."""

    def befall(run: Run, restart: int, number: int) -> None:
        run.wait_for("step", restart=restart, past_step=run.saved_step)
        run.preempt()

    every = ("checkpoint.every=10 steps", "evaluation.every=25 steps")
    run = in_portions(bench, "chained", count, befall, "step=0.1", 8 * count + 20, every)
    redone = steps_redone(run.folder)
    assert len(redone) >= count and max(redone) <= 1, redone
    return {"preempted": count, "attempts": len(redone) + 1, "steps_redone": max(redone)}


def in_portions(
    bench: Bench,
    name: str,
    count: int,
    befall: Callable[[Run, int, int], None],
    pace: str,
    steps: int,
    every: tuple[str, ...],
) -> Run:
    """Returns a run that `count` things befell and that ended as the one left alone did.

    What is done stays in KEPT: a portion that comes to its end stops the run, and the same command goes on with it.

    Args:
        bench: where.
        name: of the run.
        count: of disturbances.
        befall: (run, restarts of its newest job so far, number of the disturbance): waits for its moment and disturbs.
        pace: of both runs' phases. steps: how long they are. every: how often they save and evaluate.
    """
    bench = Bench(bench.cluster, KEPT / name)
    sizes = (f"training.duration={steps} steps", *every)
    made = bench.made("alone")
    reference = undisturbed(bench, "alone", *sizes, steps=steps) if made is None else facts_of(made.folder, steps)
    run = bench.launch(name, 2, 1, DROPOUT, *sizes, pace=pace)
    counter = bench.folder / "disturbed"
    before, began = int(counter.read_text()) if counter.exists() else 0, time.monotonic()
    for restart in range(count - before):
        number = before + restart
        if time.monotonic() - began > PORTION_S:
            run.wait_for("step", restart=restart, past_step=run.saved_step)
            run.stop()
            raise SystemExit(f"{name}: {number} of {count} so far; the same command goes on")
        befall(run, restart, number)
        counter.write_text(str(number + 1))
    run.finish()
    assert facts_of(run.folder, steps) == reference
    return run


def limited(bench: Bench, count: int) -> dict[str, Any]:
    """A run of more than two minutes in a job of two: saves in time, requeues itself, `count` runs."""
    reference = undisturbed(bench, "alone", "training.duration=80 steps", steps=80)
    found = []
    for number in range(count):
        run = bench.launch(
            f"limited-{number}", 2, 1, DROPOUT, "training.duration=80 steps", "cluster.time=2 min", pace="step=2 evaluation=0.1"
        )
        run.finish()
        assert facts_of(run.folder, 80) == reference
        redone, starts = steps_redone(run.folder), run.starts
        assert redone and max(redone) == 0, redone
        assert all(start.verdict == "requeued" and "time limit is near" in start.cause for start in starts[:-1]), starts
        states = [row["State"] for row in bench.cluster.sacct(run.job_id, "State")]
        assert "TIMEOUT" not in states, states
        left = [60 * 2 - (start.ended - start.began) for start in starts[:-1] if start.ended is not None]
        found.append({"starts": len(starts), "seconds_left": [round(seconds, 1) for seconds in left]})
    return {"runs": found}


def cut(bench: Bench, count: int) -> dict[str, Any]:
    """The cable of the job's first, then of its second node is pulled during a save; the storage stays writable.

    The ranks there go on until they see that nobody answers; the run ends elsewhere meanwhile. What they leave is in
    their own attempt, and nothing of the later ones has changed.
    """
    options = ("guard.hang_timeout=20 s",)
    reference, found = undisturbed(bench, "alone", *options), []
    cluster = bench.cluster
    for number in range(2 * count):
        run = bench.launch(f"cut-{number}", 2, 1, DROPOUT, *options, pace="step=0.2 evaluation=0.4 save=2")
        run.wait_for("save", past_step=SAVE_EVERY + 1)
        node = cluster.job(run.job_id).nodes[number % 2]
        cluster.cut_net(node)
        run.finish()
        facts, later = facts_of(run.folder), _later_attempts(run)
        assert facts == reference
        wait_until(lambda node=node: not _ranks_on(bench, node), PATIENCE_S, lambda node=node: f"ranks stay on {node}")  # type: ignore[misc]
        assert facts_of(run.folder) == facts and _later_attempts(run) == later
        stale = read_json(run.folder.attempts()[0].exit_path)
        redone = steps_redone(run.folder)
        assert max(redone) <= 2 * SAVE_EVERY, redone
        found.append({"cut": "first node" if number % 2 == 0 else "other node", "steps_redone": redone, "stale": (stale or {}).get("state")})
        cluster.reset()
    return {"runs": found}


def restarted(bench: Bench, count: int) -> dict[str, Any]:
    """The controller goes while a run steps, comes back; goes again, and the run, told to stop, waits for it."""
    reference, cluster = undisturbed(bench, "alone"), bench.cluster
    for number in range(count):
        run = bench.launch(f"restarted-{number}", 2, 1, DROPOUT, pace=PACE)
        job = run.job_id
        run.wait_for("step", past_step=2)
        nodes = cluster.job(job).nodes
        cluster.kill_ctld()
        run.wait_for("step", past_step=5)
        cluster.start_ctld()
        run.wait_for("step", past_step=8)
        cluster.kill_ctld()
        for pid in [pid for node in nodes for pid in _ranks_on(bench, node)]:
            os.kill(pid, signal.SIGTERM)
        exit_path = run.folder.attempts()[-1].exit_path
        wait_until(exit_path.exists, PATIENCE_S, lambda: "the ranks do not stop")
        time.sleep(15.0)  # the job is asking a controller that does not answer
        cluster.start_ctld()
        _wait_for_start(run, 1)
        run.finish()
        assert facts_of(run.folder) == reference
        assert max(steps_redone(run.folder)) == 0
    return {"restarts": 2 * count}


def sharded(bench: Bench, count: int) -> dict[str, Any]:
    """ZeRO-2 on two ranks: requeued in an evaluation, preempted in a step, a node killed in a save."""
    reference = undisturbed(bench, "alone", "engine=zero2")
    worst = 0
    for number in range(count):
        run = bench.launch(f"sharded-{number}", 2, 1, DROPOUT, "engine=zero2", pace=PACE)
        run.wait_for("evaluation", past_step=1)
        run.requeue()
        run.wait_for("step", restart=1, past_step=10)
        run.preempt()
        run.wait_for("save", restart=2, past_step=15)
        node = bench.cluster.job(run.job_id).nodes[number % 2]
        bench.cluster.kill_node(node)
        run.finish()
        assert facts_of(run.folder) == reference
        *in_time, killed = steps_redone(run.folder)
        assert max(in_time) <= 1 and killed <= SAVE_EVERY, (in_time, killed)
        worst = max(worst, *in_time)
        bench.cluster.reset()
    return {"disturbed": 3 * count, "steps_redone": worst}


def _wait_for_start(run: Run, restart: int) -> None:
    wait_until(lambda: run.is_started(restart), PATIENCE_S, lambda: f"start {restart} does not come:\n{run.said()}")


def _ranks_on(bench: Bench, node: str) -> list[int]:
    """Returns the training processes on a node."""
    found = []
    for pid in bench.cluster.processes_of(node):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if Path(f"/proc/{pid}").exists() else []
        if b"train" in words and b"srun" not in words[0]:
            found.append(pid)
    return found


def _later_attempts(run: Run) -> dict[str, str]:
    """Returns the hash of every file of the run that the first attempt has no business with."""
    files = contents(run.folder.path)
    return {path: value for path, value in files.items() if not path.startswith(("attempts/1/", "jobs/"))}


SCENARIOS: dict[str, Callable[[Bench, int], dict[str, Any]]] = {
    function.__name__: function for function in (requeued, preempted, chained, limited, cut, restarted, sharded)
}


def main(arguments: list[str]) -> int:
    """Runs one scenario on a cluster of its own."""
    name, count = arguments[0], int(arguments[1]) if len(arguments) > 1 else 1
    with tempfile.TemporaryDirectory() as folder, temporary() as cluster:
        counted = SCENARIOS[name](Bench(cluster, Path(folder)), count)
    shutil.rmtree(KEPT / name, ignore_errors=True)
    print(json.dumps(counted))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
