"""A grid as one job array with a point that fails and is retried; a search whose controller is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configs import compose
from configs.runfolder import read_json, read_ledger, saved_step
from launch.records import read_jobs, read_starts
from launch.sweep import Sweep, all_sweeps, outcomes
from tests.kills.lab import make_chats, make_tokenizer
from tests.slurm.cluster import Cluster

DEADLINE_S = 900.0
AISC = str(Path(sys.executable).with_name("aisc"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, chats and run.yaml: 24 steps of a tiny model on one rank."""
    folder = tmp_path_factory.mktemp("sweeps")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 120))
    sections = {
        "model": {"preset": "tiny_llama", "tokenizer": "tokenizer"},
        "data": {"train": "chats.jsonl", "sequence_length": 64, "workers": 1},
        "training": {"duration": "24 steps", "global_batch_size": 2, "micro_batch_size": 2, "precision": "fp32"},
        "evaluation": {"every": "8 steps", "replies": 0},
        "checkpoint": {"every": "end"},
        "guard": {"reference_check": False},
        "engine": {"backend": "gloo"},
        "cluster": {"name": "slurm", "gpus_per_node": 0, "time": "20 min", "check_nodes": False},
    }
    (folder / "run.yaml").write_text(json.dumps(sections))
    return folder


def aisc(cluster: Cluster, place: Path, *arguments: str) -> str:
    """Returns what `aisc *arguments` prints on the login node, run in `place`."""
    command = [AISC, *arguments]
    done = subprocess.run(command, cwd=place, env=cluster.env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until(happened: Callable[[], bool]) -> None:
    """Waits for something that the cluster does."""
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def wait_for_empty_queue(cluster: Cluster) -> None:
    wait_until(lambda: not cluster.call("squeue", "--noheader").strip())


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_a_grid_is_one_array_and_what_failed_is_retried(slurm: Cluster, place: Path) -> None:
    words = ("run.yaml", "-m", "optimizer.lr=3e-3,1e-4", "training.seed=range(1,4)", "sweep.throttle=2")
    said = aisc(slurm, place, "launch", *words)
    assert "2 lr x 3 seeds, 6 runs (2 at a time)" in said
    (sweep,) = all_sweeps(place / "runs")
    # The last point, which waits behind the throttle, finds its data gone.
    frozen = sweep.run_of(5).path / "launch.yaml"
    whole = frozen.read_text()
    frozen.write_text(whole.replace("chats.jsonl", "gone.jsonl"))
    (job,) = read_jobs(sweep.path)
    assert job.array == "0-5%2"
    running = slurm.call("squeue", "--noheader", "--array", "--states=R", "--format=%F").split()
    assert set(running) <= {str(job.job_id)} and len(running) <= 2
    wait_for_empty_queue(slurm)
    assert [one.state for one in outcomes(sweep)] == ["done"] * 5 + ["failed"]
    table = one_line(aisc(slurm, place, "runs", "show", sweep.short))
    assert "6 runs, 5 done, 1 failed" in table and "3e-3 3 " in table and "1e-4 2 " in table
    squeezed = table.replace(" ", "")  # the column is narrow, words are folded
    assert "seed3:data.train=gone.jsonl:nosuchfileorfolder" in squeezed, table
    assert f"retry:aiscrunsretry{sweep.short}" in squeezed, table
    frozen.write_text(whole)
    assert "again point 5" in aisc(slurm, place, "runs", "retry", sweep.short)
    wait_for_empty_queue(slurm)
    assert [one.state for one in outcomes(sweep)] == ["done"] * 6
    assert [len(sweep.run_of(number).attempts()) for number in range(6)] == [1] * 6, "nothing that was done ran again"
    assert [job.array for job in read_jobs(sweep.path)] == ["0-5%2", "5%2"]
    assert "nothing to retry" in aisc(slurm, place, "runs", "retry", sweep.short)
    check_products(slurm, place, sweep)


def test_a_stopped_sweep_saves_what_runs_and_leaves_the_queue(slurm: Cluster, place: Path) -> None:
    words = ("run.yaml", "-m", "training.seed=range(11,14)", "sweep.throttle=1", "training.duration=4000 steps")
    said = one_line(aisc(slurm, place, "launch", *words))
    (sweep,) = [one for one in all_sweeps(place / "runs") if one.name in said]
    running = sweep.run_of(0)
    wait_until(lambda: bool(read_ledger(running.path)))
    said = aisc(slurm, place, "runs", "stop", sweep.short)
    assert "2 that waited cancelled" in said and "asked attempt 1" in said
    wait_for_empty_queue(slurm)
    assert [one.state for one in outcomes(sweep)] == ["stopped", "waiting", "waiting"]
    assert saved_step(running.path) == len(read_ledger(running.path)) < 4000
    refused = subprocess.run([AISC, "runs", "stop", sweep.short], cwd=place, env=slurm.env, capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "nothing to stop" in refused.stdout + refused.stderr


def check_products(cluster: Cluster, place: Path, sweep: Sweep) -> None:
    """The table is whole, the best is a RUN.yaml that composes to the best point, the figure has a line per setting."""
    table = one_line(aisc(cluster, place, "runs", "show", sweep.short))
    assert "6 runs, 6 done" in table and "3e-3 3 " in table and "1e-4 3 " in table and "+-" in table
    (point,) = [one for one in outcomes(sweep) if f"point {one.point.number}," in (sweep.path / "best.yaml").read_text()]
    best, ran = compose.load([str(sweep.path / "best.yaml")]).config, compose.thaw((point.run.path / "launch.yaml").read_text())
    assert (best.optimizer.lr, best.training.seed) == (ran.optimizer.lr, ran.training.seed) == (3e-3, int(point.point.values["training.seed"]))
    assert (sweep.path / "compare.svg").read_text().startswith("<svg")


def controllers(cluster: Cluster) -> list[int]:
    """Returns the processes that control a search."""
    found = []
    for pid in cluster.processes_of():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"python" in words[0] and words[-4:-2] == [b"job", b"search"]:
            found.append(pid)
    return found


def test_a_search_survives_its_controller(slurm: Cluster, place: Path) -> None:
    words = [
        "run.yaml",
        "-m",
        "optimizer.lr=tag(log,interval(1e-6,1e-2))",
        "training.duration=160 steps",
        "evaluation.every=16 steps",
        "sweep.trials=8",
        "sweep.throttle=2",
        "sweep.sampler=random",
        "sweep.seed=2",
    ]
    said = aisc(slurm, place, "launch", *words)
    assert "a search over optimizer.lr, 8 trials (2 at a time)" in said
    sweep = all_sweeps(place / "runs")[0]
    (job,) = read_jobs(sweep.path)
    wait_until(lambda: len(sweep.points()) == 2 and all(read_jobs(sweep.run_of(n).path) for n in (0, 1)))
    (controller,) = controllers(slurm)
    os.kill(controller, signal.SIGKILL)
    wait_for_empty_queue(slurm)
    found = outcomes(sweep)
    states = [one.state for one in found]
    assert len(found) == 8 and set(states) == {"done", "pruned"} and states.count("done") >= 2, states
    assert [len(read_jobs(one.run.path)) for one in found] == [1] * 8, "nothing was submitted twice"
    for one in found:
        starts = read_starts(one.run.path)
        assert [start.verdict for start in starts] == ["stopped" if one.state == "pruned" else "finished"]
    assert (job_output := (sweep.path / "jobs" / f"{job.job_id}.out").read_text()).count("Killed") == 1, job_output
    check_best_trial(slurm, place, sweep)


def check_best_trial(cluster: Cluster, place: Path, sweep: Sweep) -> None:
    """The best of the trials that came to their end is best.yaml; a pruned one was worse than it."""
    table = one_line(aisc(cluster, place, "runs", "show", sweep.short))
    assert "8 trials" in table and "pruned" in table
    done = {one.point.values["optimizer.lr"]: one.eval_loss for one in outcomes(sweep) if one.eval_loss is not None}
    rate = min(done, key=lambda key: done[key])
    assert compose.load([str(sweep.path / "best.yaml")]).config.optimizer.lr == float(rate)
    result = read_json(next(one.run.result_path for one in outcomes(sweep) if one.point.values["optimizer.lr"] == rate))
    assert result is not None and result["eval_loss"] == done[rate]
