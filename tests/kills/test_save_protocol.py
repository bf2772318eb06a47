"""The save protocol broken at every system call and killed at random moments, in processes that never import torch."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from configs.runfolder import Attempt, RunFolder
from tests.kills import saver
from train.checkpoint_reading import begin_attempt, find_latest, open_checkpoint

ROOT = Path(__file__).parents[2]


def run_saver(*arguments: str) -> dict[str, int]:
    """Runs tests/kills/saver.py in a fresh process and returns the counts of its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills.saver", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-1000:]
    counts: dict[str, int] = ast.literal_eval(done.stdout.splitlines()[-1])
    return counts


@pytest.mark.parametrize("fault", ["kill", "torn", "ENOSPC", "EIO"])
def test_a_fault_at_every_system_call(fault: str) -> None:
    counts = run_saver("faults", fault)
    assert counts["faults"] == counts["old"] + counts["new"] >= 40
    assert counts["old"] >= 15 and counts["new"] >= 10, "faults before and after the new one was published"


def test_kills_at_random_moments() -> None:
    counts = run_saver("kills", "20", "1")
    assert counts["kills"] == 20
    assert counts["half_written"] >= 1, "no kill hit a save: nothing was shown"
    assert counts["steps"] >= 1


def test_a_suspended_attempt_that_wakes_changes_nothing(tmp_path: Path) -> None:
    """Stopped inside a save, before each of its system calls in turn; its successor saves; then it wakes."""
    woken = 0
    for number in range(1, 200):
        run = RunFolder(tmp_path / f"run-{number}")
        attempt = begin_attempt(run, {})[0]
        saver.save(run, attempt, 1)
        pid = os.fork()
        if pid == 0:
            saver.suspend_at(number, partial(saver.save, run, attempt, 2, keep=1))
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            break
        successor, start, _ = begin_attempt(run, {})
        assert start is not None
        saver.save(run, successor, start.step + 1)
        before = contents(run, successor), find_latest(run)[0].manifest  # type: ignore[union-attr]
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)
        newest, skipped = find_latest(run)
        assert newest is not None and not skipped
        assert (contents(run, successor), newest.manifest) == before, f"suspended before call {number}"
        saver.check(newest)
        saver.check(open_checkpoint(start.folder, start.attempt))
        woken += 1
    assert woken >= 40


def contents(run: RunFolder, successor: Attempt) -> dict[str, bytes]:
    """Returns every file of the successor and of the run outside attempts, by path."""
    files = [path for path in run.path.rglob("*") if path.is_file()]
    outside = [path for path in files if path.relative_to(run.path).parts[0] != "attempts"]
    return {str(path): path.read_bytes() for path in files if path in outside or successor.path in path.parents}
