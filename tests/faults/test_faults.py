"""A killed and a suspended rank under torchrun; the other faults are in `python -m tests.soak faults`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.faults import HANG_TIMEOUT_S, MARGIN_S
from tests.scenario import run_scenario


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    values: dict[str, Any] = run_scenario("tests.faults.faults", "sigkill", "sigstop")[-1]
    return values


def test_a_killed_rank_is_named_at_once_and_the_run_continues(found: dict[str, Any]) -> None:
    assert found["sigkill"]["named"] == [1]
    assert found["sigkill"]["detected_s"] <= MARGIN_S
    assert 0 < found["sigkill"]["continued_from"] <= found["sigkill"]["stopped_at"]


def test_a_suspended_rank_is_named_within_the_bound_with_stacks(found: dict[str, Any]) -> None:
    assert found["sigstop"]["named"] == [1]
    assert HANG_TIMEOUT_S - 1 <= found["sigstop"]["detected_s"] <= HANG_TIMEOUT_S + MARGIN_S
    assert found["sigstop"]["stacks"] == 1, "that of the rank that lives"
    assert "its process is suspended; 1 rank waits for it in all_reduce: train/step.py:" in found["sigstop"]["cause"]
