"""Where an attempt's time goes, as rank 0 writes it down: labels, order, and what a repeated step is called."""

from __future__ import annotations

import time
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import atomic
from configs.jsonlines import append_line, read_last_line, read_lines
from configs.runfolder import Attempt, RunFolder
from configs.timekeeping import made_step, phases_path, used_by
from train import activity
from train.phases import Phases, process_began


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Attempt]:
    yield RunFolder(tmp_path / "run").claim()
    activity.CURRENT.listener = None


def step(number: int) -> None:
    activity.begin_step(number)
    for phase in ("forward", "backward", "optimizer"):
        activity.enter(phase)


def phases_of(attempt: Attempt) -> list[tuple[str, int]]:
    return [(line["phase"], line["step"]) for line in read_lines(phases_path(attempt))]


def test_a_whole_attempt(attempt: Attempt) -> None:
    phases = Phases()
    activity.enter("prepare")
    activity.enter("start")
    step(0)  # the rehearsal
    phases.write_to(attempt)
    activity.enter("load")
    activity.begin_at(0)
    activity.enter("evaluation")
    activity.enter("evaluation")
    activity.enter("replies")
    step(1)
    step(2)
    step(3)
    activity.enter("save")
    step(4)
    activity.enter("export")
    activity.enter("end")
    phases.close()
    assert phases_of(attempt) == [
        ("start-up", 0),
        ("prepare", 0),
        ("start-up", 0),
        ("evaluate", 1),
        ("compile", 1),
        ("train", 2),
        ("save", 3),
        ("train", 4),
        ("tail", 4),
        ("ended", 4),
    ]
    times = [line["time"] for line in read_lines(phases_path(attempt))]
    assert times == sorted(times)


def test_steps_that_an_earlier_attempt_made_are_redone(attempt: Attempt) -> None:
    for number in range(1, 6):
        append_line(attempt.ledger_path, {"step": number, "position": number - 1, "head": "0" * 64})
    second = RunFolder(attempt.run).claim()
    phases = Phases()
    phases.write_to(second)
    activity.begin_at(3)
    for number in range(4, 8):
        step(number)
    phases.close()
    assert phases_of(second) == [("start-up", 0), ("compile", 4), ("redone", 5), ("train", 6), ("ended", 7)]


def test_going_back_to_a_checkpoint_is_redone_until_the_run_is_where_it_was(attempt: Attempt) -> None:
    phases = Phases()
    phases.write_to(attempt)
    activity.begin_at(0)
    for number in (1, 2, 3, 4):
        step(number)
    activity.enter("load")
    for number in (2, 3, 4, 5):
        step(number)
    phases.close()
    # Step 4 was begun, never made: it is new the second time.
    assert phases_of(attempt) == [("start-up", 0), ("compile", 1), ("train", 2), ("redone", 4), ("train", 4), ("ended", 5)]


def test_the_first_run_begins_with_its_process_and_the_next_where_that_one_ended(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Phases, "_last_end", None)
    assert 0 < process_began() < time.time()
    for expected in (process_began(), time.time()):
        phases = Phases()
        phases.write_to(attempt)
        (first, *_) = read_lines(phases_path(attempt))
        assert abs(first["time"] - expected) < 0.5
        phases.close()
        phases_path(attempt).unlink()


def test_the_newest_step_is_read_from_the_end_of_a_long_ledger(attempt: Attempt) -> None:
    attempt.ledger_path.write_text("".join(f'{{"step": {n}, "head": "{"a" * 64}"}}\n' for n in range(1, 2000)) + '{"step": 20')
    assert made_step(attempt.run) == 1999
    assert made_step(attempt.run, below=1) == 0
    assert read_last_line(attempt.path / "none") is None


def test_listening_costs_microseconds(attempt: Attempt) -> None:
    phases = Phases()
    phases.write_to(attempt)
    activity.begin_at(0)
    step(1)
    step(2)
    each_s = min(timeit.repeat(lambda: activity.enter("forward"), number=2000, repeat=5)) / 2000
    phases.close()
    assert each_s < 2e-5


def test_each_attempt_counts_its_own_processes(tmp_path: Path) -> None:
    """Also one that nothing goes on from; one that ended before its processes met says not how many they were."""
    run = RunFolder(tmp_path / "run")
    for world in (8, 2, None, 4):
        attempt = run.claim()
        atomic.write_json(attempt.start_path, {"time": 1000.0, "parent": None})
        if world:
            append_line(attempt.events_path, {"time": 1000.0, "event": "started", "world": world, "device": "CPU"})
        if world != 4:
            atomic.write_json(attempt.exit_path, {"state": "stopped", "code": 75, "cause": "", "time": 1090.0})
    used = used_by(run, now=1030.0)
    assert [(one["attempt"], one["seconds"], one["world"]) for one in used] == [(1, 90.0, 8), (2, 90.0, 2), (4, 30.0, 4)]
