"""Stopping in time: the margin follows the saves that were seen, and the longest wait between two looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.deadline import END_S, Deadline
from train.signals import StopRequest
from train.stopping import BY_DEADLINE, BY_FILE, kind_of_stop


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_a_job_there_is_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AISC_DEADLINE", raising=False)
    assert not Deadline.from_environment([]).is_near()


def test_the_margin_is_twice_the_longest_save_and_step() -> None:
    clock = Clock()
    deadline = Deadline(10_000.0, save_s=30.0, clock=clock)
    clock.now += 15.0  # one step of 15 s
    assert not deadline.is_near()
    assert deadline.margin_s == END_S + 2 * (30.0 + 15.0)
    deadline.saved(50.0)
    deadline.saved(40.0)
    assert deadline.margin_s == END_S + 2 * (50.0 + 15.0)


def test_before_the_first_save_a_tenth_of_the_time_is_kept() -> None:
    clock = Clock()
    assert Deadline(1000.0 + 3000.0, clock=clock).margin_s == END_S + 300.0
    assert Deadline(1000.0 + 1e6, clock=clock).margin_s == END_S + 600.0


def test_earlier_attempts_tell_how_long_a_save_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISC_DEADLINE", "2000000000")
    events = [{"event": "saved", "seconds": 3.0, "stall_s": 1.0}, {"event": "saving"}, {"event": "saved", "seconds": 2.0}]
    assert Deadline.from_environment(events).save_s == 4.0


@given(
    limit=st.floats(120, 3e3), step=st.floats(1, 30), save=st.floats(0.0, 200)
)
def test_what_is_left_at_the_stop_suffices_for_the_step_under_way_and_its_save(limit: float, step: float, save: float) -> None:
    clock = Clock()
    deadline = Deadline(clock.now + limit, save_s=save, clock=clock)
    while not deadline.is_near():
        clock.now += step
    # The first look may come too late only where the whole time is shorter than what has to be kept.
    assert deadline.at is not None
    assert clock.now + save <= deadline.at or limit < deadline.margin_s + step


def test_a_person_s_stop_is_told_from_a_limit() -> None:
    for cause, kind in ((BY_FILE, "user"), (BY_DEADLINE, "outside"), ("SIGTERM", "outside"), ("SIGINT", "user")):
        stop = StopRequest()
        stop.request(cause)
        assert kind_of_stop(stop) == kind
