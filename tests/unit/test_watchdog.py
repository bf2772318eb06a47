"""Whom the watchdog names, when it speaks, and that one rank speaks for all. No process is harmed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.durations import parse_seconds
from configs.runfolder import Attempt, RunFolder, process_start, process_state, read_events, read_json
from train import activity, rank_notes
from train.activity import CURRENT
from train.rank_notes import RankNote, own_note
from train.watchdog import SLOW_FACTOR, Watchdog, blame, is_hanging

TIMEOUT_S = 20.0


@pytest.fixture(autouse=True)
def activity_of_step_5() -> Iterator[None]:
    activity.begin_at(3)
    activity.begin_step(5)
    yield
    activity.begin_at(0)


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    run = RunFolder(tmp_path / "run")
    attempt = run.claim()
    attempt.write_start({}, None)
    return attempt


def note(rank: int, **changes: object) -> RankNote:
    """A rank on another machine that waits in an all_reduce of step 12."""
    values = {
        "rank": rank,
        "host": f"n{rank}",
        "pid": 4000 + rank,
        "pid_started": None,
        "step": 12,
        "phase": "forward",
        "collective": "all_reduce",
        "count": 100,
        "still_s": TIMEOUT_S,
        "is_slow": False,
        "place": "train/step.py:88",
        "waits": True,
        "saw_loss": False,
        "beat": 7,
        **changes,
    }
    return RankNote(**values)  # type: ignore[arg-type]


def watch(attempt: Attempt, world: int, left: list[int]) -> Watchdog:
    return Watchdog(attempt, 0, world, TIMEOUT_S, hint=lambda run: "Go on.", leave=left.append)


def run_ticks(watchdog: Watchdog, began_s: float, rounds: int) -> float:
    """Lets the watchdog look `rounds` times, one interval apart; returns the time of the last."""
    for number in range(1, rounds + 1):
        watchdog.tick(began_s + number * watchdog.interval_s)
    return began_s + rounds * watchdog.interval_s


CASES = {
    "stale": (
        {0: note(0), 1: note(1, waits=False, collective="")},
        {1},
        "rank 1 (host n1, pid 4001) stopped answering at step 12 in forward; 1 rank waits for it in all_reduce: "
        "train/step.py:88, no progress for 8 s",
    ),
    "outside": (
        {0: note(0), 1: note(1), 2: note(2, waits=False, collective="", place="train/scores.py:7")},
        set(),
        "rank 2 (host n2, pid 4002) stands still at step 12 in forward: train/scores.py:7; 2 ranks wait for it in "
        "all_reduce: train/step.py:88, no progress for 8 s",
    ),
    "behind": (
        {0: note(0), 1: note(1, count=98, collective="barrier")},
        set(),
        "rank 1 (host n1, pid 4001) stands still at step 12 in forward: train/step.py:88; 1 rank waits for it in "
        "all_reduce: train/step.py:88, no progress for 8 s",
    ),
    "alike": (
        {0: note(0), 1: note(1)},
        set(),
        "all 2 ranks stopped in all_reduce at step 12: train/step.py:88, no progress for 8 s",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rank_that_the_others_wait_for_is_named(case: str) -> None:
    notes, stale, expected = CASES[case]
    assert blame(notes, stale, len(notes), 8.4)[1] == expected


def test_many_are_counted_and_one_that_never_wrote_is_named() -> None:
    notes = {rank: note(rank) for rank in range(9)}
    culprits, sentence = blame(notes, set(range(1, 8)), 10, 8.0)
    assert culprits == list(range(1, 8)) and sentence.count("stopped answering") == 4 and "and 4 more" in sentence
    assert "rank 1 (it has never written a note)" in blame({0: note(0)}, set(), 2, 8.0)[1]


def test_a_suspended_process_of_this_machine_is_called_so() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"])
    try:
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        here = dataclasses.replace(own_note(1), pid=child.pid, pid_started=process_start(child.pid))
        assert "its process is suspended" in blame({0: note(0), 1: here}, {1}, 2, 8.0)[1]
    finally:
        child.kill()
        child.wait()
    assert process_state(child.pid, here.pid_started) == "gone"
    assert "is gone since step" in blame({0: note(0), 1: here}, {1}, 2, 8.0)[1]


def test_nothing_is_said_before_the_bound(attempt: Attempt) -> None:
    left: list[int] = []
    watchdog = watch(attempt, 1, left)
    run_ticks(watchdog, 0.0, 20)  # the first only takes note of where things stand
    assert not left and not attempt.exit_path.exists()
    run_ticks(watchdog, 20.0, 1)
    assert left == [75]


@pytest.mark.parametrize("phase", ["save", "export", "replies"])
def test_slow_phases_have_five_times_the_bound(phase: str) -> None:
    activity.enter(phase)
    assert CURRENT.is_slow
    slow = note(0, is_slow=True)
    assert not is_hanging(slow, TIMEOUT_S, 0.0)
    assert is_hanging(dataclasses.replace(slow, still_s=SLOW_FACTOR * TIMEOUT_S), TIMEOUT_S, 0.0)


def test_the_first_step_is_slow_and_the_next_is_not() -> None:
    activity.begin_at(3)
    activity.begin_step(4)
    assert CURRENT.is_slow
    activity.begin_step(5)
    assert not CURRENT.is_slow


def test_any_sign_of_progress_starts_the_clock_again(attempt: Attempt) -> None:
    left: list[int] = []
    watchdog = watch(attempt, 1, left)
    now_s = run_ticks(watchdog, 0.0, 18)
    activity.sign()
    run_ticks(watchdog, now_s, 18)
    assert not left


def test_time_in_which_this_process_was_suspended_does_not_count(attempt: Attempt) -> None:
    left: list[int] = []
    watchdog = watch(attempt, 1, left)
    now_s = run_ticks(watchdog, 0.0, 3)
    run_ticks(watchdog, now_s + 3600.0, 3)
    assert not left


def test_a_rank_that_moves_keeps_the_others_waiting(attempt: Attempt) -> None:
    left: list[int] = []
    watchdog = watch(attempt, 2, left)
    for number in range(40):
        rank_notes.write_note(watchdog.folder, note(1, still_s=0.5, beat=number))
        watchdog.tick(float(number))
    assert not left
    for number in range(40, 80):  # its notes are fresh, but it stands still too
        rank_notes.write_note(watchdog.folder, note(1, beat=number))
        watchdog.tick(float(number))
        if left:
            break
    assert left == [75]


def test_the_end_is_recorded_with_stacks_of_who_lives(attempt: Attempt, capsys: pytest.CaptureFixture[str]) -> None:
    left: list[int] = []
    watchdog = watch(attempt, 2, left)
    rank_notes.write_note(watchdog.folder, note(1, waits=False, collective=""))
    activity.begin_collective("all_reduce")
    run_ticks(watchdog, 0.0, 22)
    activity.end_collective()
    end = read_json(attempt.exit_path)
    assert end is not None and left[0] == 75
    assert (end["state"], end["code"], end["kind"], end["rank"]) == ("failed", 75, "hang", 1)
    assert end["cause"].startswith("rank 1 (host n1, pid 4001) stopped answering at step 12")
    assert end["cause"].endswith("Go on.") and "1 rank waits for it in all_reduce" in end["cause"]
    (stacks,) = attempt.path.glob("hang-*/rank-*.txt")
    assert "collective all_reduce" in stacks.read_text() and "test_watchdog.py" in stacks.read_text()
    assert stacks.stat().st_mode & 0o777 == 0o600
    assert [event["event"] for event in read_events(attempt.run)] == ["hang"]
    assert capsys.readouterr().err == f"failed: {end['cause']}\n"


def test_who_comes_second_adds_stacks_and_leaves_without_a_word(
    attempt: Attempt, capsys: pytest.CaptureFixture[str]
) -> None:
    left: list[int] = []
    watchdog = watch(attempt, 2, left)
    stacks = attempt.path / "hang-0251"
    assert rank_notes.claim_failure(watchdog.folder, {"kind": "hang", "code": 75, "stacks": str(stacks)})
    assert not rank_notes.claim_failure(watchdog.folder, {"kind": "lost", "code": 1})
    attempt.finish("failed", 75, "told by rank 1")
    watchdog.tick(1.0)
    assert left[0] == 75 and [path.name for path in stacks.iterdir()] == ["rank-00000.txt"]
    assert capsys.readouterr().err == "" and read_json(attempt.exit_path)["cause"] == "told by rank 1"  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30 s", 30), ("5 min", 300), ("6h", 21600), ("1:30:00", 5400), ("1-12:00:00", 129600), ("0", 0)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["12:30", "soon", "5 steps", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        parse_seconds(text)
