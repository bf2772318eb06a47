"""A stop during the reference's pass: the attempt ends as after any step, and the next start goes on with the pass."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cli.main import main
from configs.runfolder import RunFolder, read_json, read_ledger, request_stop
from tests.kills.lab import make_chats, make_tokenizer
from tests.unit.test_tiny_learner import one_thread, own_signals

__all__ = ["one_thread", "own_signals"]

PAIRS = 400
# Of this process's own time, from the wish to the end: the last batch, the report.
WITHIN_CPU_S = 5.0
# The file is looked for at once, then every second: it is there before the pass begins. A signal needs its handler.
FILE = ("start.json", request_stop, "user")
SIGNAL = ("config.yaml", lambda run: os.kill(os.getpid(), signal.SIGTERM), "outside")


def make_pairs(path: Path) -> None:
    """Writes pairs of sums, a right and a wrong one: two documents each."""
    rows = [
        {"prompt": f"What is {n} and {n % 7}?", "chosen": f"It is {n + n % 7}.", "rejected": f"It is {n + n % 7 + 3}."}
        for n in range(100, 100 + PAIRS)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))


def start(place: Path, when: str = "", act: Callable[[Path], object] = print) -> tuple[int, float]:
    """Runs the one command in this process; returns its code, and the seconds from `act` to its end.

    Args:
        place: of data and runs.
        when: the file of the attempt that calls for `act`; none: never.
        act: takes the run's folder.
    """
    run_dir, acted, is_over = place / "runs", 0.0, threading.Event()
    number = sum(1 for _ in run_dir.glob("*/attempts/*")) + 1

    def wait() -> None:
        nonlocal acted
        while when and not is_over.wait(0.001):
            for path in run_dir.glob(f"*/attempts/{number}/{when}"):
                acted = time.process_time()
                act(path.parents[2])
                return

    watcher = threading.Thread(target=wait)
    watcher.start()
    code = main(
        [
            "train",
            "model=tiny_llama",
            f"model.tokenizer={place}/tokenizer",
            f"data={place}/pairs.jsonl",
            f"data.store={place}/stores",
            "data.sequence_length=96",
            "data.packing=false",
            "data.workers=1",
            "data.validation=none",
            "objective=dpo",
            "training.duration=2 steps",
            "training.min_steps=0",
            "training.global_batch_size=2",
            "training.micro_batch_size=1",
            f"run.dir={run_dir}",
        ]
    )
    ended = time.process_time()
    is_over.set()
    watcher.join()
    return code, ended - acted


@pytest.mark.usefixtures("one_thread", "own_signals")
def test_a_stopped_pass_ends_the_attempt_and_the_next_one_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tokenizer(tmp_path / "tokenizer", make_chats(tmp_path / "chats.jsonl", 50))
    make_pairs(tmp_path / "pairs.jsonl")
    known = []
    for when, stop, kind in (FILE, SIGNAL):
        code, seconds = start(tmp_path, when, stop)
        assert code == 75 and seconds < WITHIN_CPU_S
        assert "what is computed is kept. The same command continues." in capsys.readouterr().out
        (run,) = (tmp_path / "runs").iterdir()
        attempt = RunFolder(run).attempts()[-1]
        end = read_json(attempt.exit_path)
        assert end is not None and (end["state"], end["code"], end["kind"]) == ("stopped", 75, kind)
        assert not list(attempt.path.glob("checkpoints/*")) and (run / "report.html").exists()
        (begun,) = (tmp_path / "stores").glob("*/reference/*.begun.npy")
        known.append(int(np.isfinite(np.load(begun)).sum()))
    assert 0 < known[0] < known[1] < 2 * PAIRS
    assert start(tmp_path)[0] == 0
    assert f"{known[1]:,} of them known from before" in capsys.readouterr().out.replace("\n", " ")
    (column,) = (tmp_path / "stores").glob("*/reference/*/train.npy")
    assert np.isfinite(np.load(column)).all() and not begun.exists()
    assert [line["step"] for line in read_ledger(run)] == [1, 2]
