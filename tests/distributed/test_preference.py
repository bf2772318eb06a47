"""Preference objectives are the same numbers whatever the packing, the ranks, the accumulation and the engine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.preference import ARRANGEMENTS, STEPS
from tests.scenario import run_scenario

BOUND = 1e-5
CASES = [
    (arrangement, f"{name}/{optimizer}")
    for arrangement, plan in ARRANGEMENTS.items()
    if arrangement != "one process"
    for name in plan.only
    for optimizer in plan.optimizers
]


@pytest.fixture(scope="module")
def curves() -> dict[str, Any]:
    """Runs everything once, in a process that forks its ranks: pytest's own may have threads."""
    values: dict[str, Any] = run_scenario("tests.distributed.preference")[-1]
    return values


def worst(found: dict[str, list[float]], expected: dict[str, list[float]]) -> float:
    """Returns the largest relative difference of any loss or gradient norm."""
    assert all(len(curve[key]) == STEPS for curve in (found, expected) for key in curve)
    return max(abs(a / b - 1) for key in ("loss", "grad_norm") for a, b in zip(found[key], expected[key], strict=True))


@pytest.mark.parametrize(("arrangement", "case"), CASES)
def test_every_arrangement_is_the_same_mathematics(curves: dict[str, Any], arrangement: str, case: str) -> None:
    assert "error" not in curves[arrangement], curves[arrangement]["error"]
    assert worst(curves[arrangement][case], curves["one process"][case]) <= BOUND


def test_the_arrangements_differ(curves: dict[str, Any]) -> None:
    """Packed rows hold several pairs, so that one row at a time is an accumulation; each step moves the model."""
    assert 1 < curves["rows"]["True"] < curves["rows"]["False"] == 10
    for case, curve in curves["one process"].items():
        assert len({round(loss, 6) for loss in curve["loss"]}) == STEPS, case
        assert all(norm > 1e-3 for norm in curve["grad_norm"]), case


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_baseline_per_micro_batch_is_caught(curves: dict[str, Any], optimizer: str) -> None:
    assert "error" not in curves["mutant"], curves["mutant"]["error"]
    case = f"kto/{optimizer}"
    assert worst(curves["mutant"][case], curves["one process"][case]) > 100 * BOUND


def test_one_rank_stops_the_pass_of_the_reference_on_all(curves: dict[str, Any]) -> None:
    """Two batches of one row on each of two ranks: 4 rows of a pair; then the rest."""
    assert curves["stopped"] == [[8, 20], [8, 20]]
