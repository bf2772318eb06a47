"""`aisc train engine.processes=2` as a user starts it: Ctrl-C saves, the same command continues, nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from configs.runfolder import RunFolder, read_json, read_ledger, read_metrics, state_of
from launch.runs import all_runs
from tests.kills.lab import make_chats, make_tokenizer

DEADLINE_S = 180.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 160))
    return folder


def start(place: Path, runs: str, *options: str) -> subprocess.Popen[str]:
    command = [
        str(Path(sys.executable).with_name("aisc")),
        "train",
        "model=tiny_llama",
        "model.tokenizer=tokenizer",
        "data=chats.jsonl",
        "data.sequence_length=64",
        "data.workers=1",
        "training.global_batch_size=4",
        "training.micro_batch_size=2",
        "lr_scheduler.name=constant",
        "evaluation.every=end",
        "evaluation.replies=0",
        "engine.processes=2",
        f"run.dir={runs}",
        *options,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for_step(runs: Path, process: subprocess.Popen[str], step: int) -> RunFolder:
    """Waits until the run in `runs` has made `step` steps."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for run in all_runs(runs):
            if any(line["step"] >= step for line in read_metrics(run.path)):
                return run
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    raise TimeoutError("no such step")


def test_ctrl_c_saves_and_the_same_command_continues(place: Path) -> None:
    # Duration is no part of this run's identity (constant schedule), so the second command may end it.
    first = start(place, "first", "training.duration=1000000 steps")
    run = wait_for_step(place / "first", first, 3)
    os.killpg(first.pid, signal.SIGINT)
    said = first.communicate(timeout=DEADLINE_S)[0]
    assert first.returncode == 75, said
    assert "The same command continues." in said
    stopped_at = read_metrics(run.path)[-1]["step"]
    second = start(place, "first", f"training.duration={stopped_at + 5} steps", "training.min_steps=0")
    said = second.communicate(timeout=DEADLINE_S)[0]
    assert second.returncode == 0, said
    assert f"continuing at step {stopped_at} of {stopped_at + 5}" in said
    assert [line["step"] for line in read_ledger(run.path)] == list(range(1, stopped_at + 6))
    result = read_json(run.result_path)
    assert result is not None and result["attempts"] == 2


def test_a_lost_rank_takes_the_others_with_it(place: Path) -> None:
    process = start(place, "second", "training.duration=1000000 steps")
    run = wait_for_step(place / "second", process, 2)
    workers = [child.pid for child in psutil.Process(process.pid).children()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    said = process.communicate(timeout=DEADLINE_S)[0]
    assert process.returncode == 1, said
    assert not any(map(psutil.pid_exists, workers)), "no worker is left behind"
    assert state_of(run.path).state == "failed"
    assert said.count("failed:") == 1 and f"rank 1 (host {socket.gethostname()}, pid {workers[1]}) was killed" in said, said
    assert "Traceback" not in said


def test_a_suspended_rank_ends_the_run_with_75(place: Path) -> None:
    process = start(place, "suspended", "training.duration=1000000 steps", "guard.hang_timeout=6 s")
    run = wait_for_step(place / "suspended", process, 2)
    workers = [child.pid for child in psutil.Process(process.pid).children()]
    os.kill(workers[0], signal.SIGSTOP)
    said = process.communicate(timeout=DEADLINE_S)[0]
    assert process.returncode == 75, said
    assert not any(map(psutil.pid_exists, workers)), "the suspended one is ended too"
    assert said.count("failed:") == 1 and f"rank 0 (host {socket.gethostname()}, pid {workers[0]}) stopped answering" in said
    end = read_json(run.attempts()[-1].exit_path)
    assert end is not None and (end["state"], end["kind"], end["rank"]) == ("failed", "hang", 0)


def test_a_mistake_is_told_once(place: Path) -> None:
    process = start(place, "third", "training.duration=20 steps", "data.train=missing.jsonl")
    said = process.communicate(timeout=DEADLINE_S)[0]
    assert process.returncode == 2 and said.count("missing.jsonl") == 1 and "Traceback" not in said, said
