"""Preference objectives give TRL's losses, step after step, on the same tokens and weights."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.trl_preference import CASES, STEPS
from tests.scenario import run_scenario

BOUND = 1e-4


@pytest.fixture(scope="module")
def curves() -> dict[str, Any]:
    """Runs everything once, in a process of its own: TRL's trainers leave state behind."""
    values: dict[str, Any] = run_scenario("tests.distributed.trl_preference")[-1]
    return values


@pytest.mark.parametrize("name", CASES)
def test_the_losses_are_trls(curves: dict[str, Any], name: str) -> None:
    found = curves[name]
    assert "error" not in found, found["error"]
    assert len(found["ours"]) == len(found["theirs"]) == STEPS
    assert found["ours"] == pytest.approx(found["theirs"], rel=BOUND)
    # Each step moved the loss: the second and third compare gradients too.
    assert abs(found["theirs"][0] - found["theirs"][-1]) > 100 * BOUND * abs(found["theirs"][0])
