"""Whole runs killed, suspended, moved to other numbers of ranks: five kills here, twenty in `make soak`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenario import run_scenario


def run_whole(*arguments: str) -> dict[str, Any]:
    """Runs tests/kills/whole_run.py and returns what it found."""
    found: dict[str, Any] = run_scenario("tests.kills.whole_run", *arguments)[-1]
    return found


@pytest.mark.parametrize(("world", "kills", "seed"), [(1, 2, 0), (2, 2, 2), (3, 1, 1)])
def test_a_killed_run_ends_bitwise_as_one_left_alone(world: int, kills: int, seed: int) -> None:
    counts = run_whole("kills", str(world), str(kills), str(seed))
    assert counts["kills"] == kills
    assert counts["attempts"] > counts["runs"] >= 1


def test_two_then_one_then_three_processes() -> None:
    found = run_whole("worlds")
    assert found["worst_relative_difference_of_losses"] <= 1e-5
    assert found["losses"] >= 24
    assert 0 < found["stopped_at"][0] < found["stopped_at"][1] < 24


def test_a_suspended_run_that_wakes_changes_nothing() -> None:
    assert run_whole("suspended")["files_compared"] > 10


def test_a_full_disk_behind_the_training_ends_the_run_on_every_rank_and_costs_nothing() -> None:
    found = run_whole("full_disk")
    assert found["failed_at"] <= found["steps_made"]
    assert "Older checkpoints are untouched" in found["cause"]


def test_the_file_stop_ends_a_run_after_its_step() -> None:
    assert run_whole("stop_file")["stopped_at"] > 2
