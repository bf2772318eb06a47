"""Every engine gives the plain loop's twenty losses and gradient norms: 40 cases that hold every pair of choices."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed import matrix
from tests.scenario import run_scenario

ENTRIES = {entry.name: entry for entry in matrix.ci_entries()}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Runs everything once, in a process that forks its ranks: pytest's own may have threads."""
    values: dict[str, Any] = run_scenario("tests.distributed.matrix", "pairs")[-1]
    return values


def test_at_most_forty_cases_hold_every_pair() -> None:
    assert len(ENTRIES) <= 40
    assert {entry.form for entry in ENTRIES.values()} == set(matrix.FORMS) - set(matrix.SOAK_ONLY)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_engine_is_the_plain_loop(found: dict[str, Any], name: str) -> None:
    result = found["cases"][name]
    assert "error" not in result, result["error"]
    assert matrix.holds(ENTRIES[name], result), {key: result[key] for key in ("loss", "grad_norm", "eval_loss", "moved")}


@pytest.mark.parametrize("name", sorted(path.stem for path in matrix.GOLDEN.glob("*.txt")))
def test_the_plain_loop_is_the_golden_curve(found: dict[str, Any], name: str) -> None:
    golden = matrix.read_golden(name)
    assert len(golden["loss"]) == matrix.STEPS
    for key in ("loss", "grad_norm"):
        assert matrix.worst(found["golden"][name][key], golden[key]) <= matrix.BOUND
