"""The run's counters and its plan of evaluations and saves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import CheckpointSection, EvaluationSection
from train.state import Plan, RunState, interval_steps, make_plan


@pytest.mark.parametrize(
    ("text", "total", "expected"),
    [("10%", 109, 11), ("10%", 30, 3), ("end", 30, 30), ("7 steps", 30, 7), ("500 steps", 30, 30), ("1%", 5, 1)],
)
def test_intervals(text: str, total: int, expected: int) -> None:
    assert interval_steps(text, total) == expected


@given(total=st.integers(1, 500), percent=st.integers(1, 100))
def test_the_last_step_is_always_evaluated_and_saved(total: int, percent: int) -> None:
    plan = make_plan(total, EvaluationSection(every=f"{percent}%"), CheckpointSection(every=f"{percent}%"))
    assert plan.evaluates_at(total)
    assert plan.saves_at(total)
    assert plan.evaluates_at(0)
    assert not plan.saves_at(0)


def test_best_is_the_lowest_loss_of_a_trained_model() -> None:
    state = RunState()
    assert not state.record_evaluation(1.0)
    state.step = 5
    assert state.record_evaluation(2.0), "worse than before training, but the first of this run's own weights"
    state.step = 10
    assert not state.record_evaluation(2.5)
    assert (state.best_step, state.best_loss, state.eval_loss_before) == (5, 2.0, 1.0)


def test_patience_ends_the_run() -> None:
    plan = Plan(total_steps=100, evaluate_every=1, evaluate_before=False, save_every=10, patience=2)
    state = RunState(step=1)
    for loss, over in ((1.0, False), (1.1, False), (1.2, True)):
        state.record_evaluation(loss)
        assert plan.is_over(state) is over
        state.step += 1


def test_skipped_positions_are_passed_over() -> None:
    state = RunState(position=3, skip=[3, 4, 9])
    assert state.next_position() == 5


def test_state_survives_json() -> None:
    state = RunState(step=3, position=4, skip=[1], ledger="ab", best_loss=0.5, best_step=2)
    assert RunState.from_json(state.to_json()) == state
