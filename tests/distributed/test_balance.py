"""The balance loss and the load of experts are the same numbers under every engine, and the loss does something."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.balance import ARRANGEMENTS
from tests.scenario import run_scenario


@pytest.fixture(scope="module")
def curves() -> dict[str, Any]:
    """Runs everything once, in a process that forks its ranks: pytest's own may have threads."""
    values: dict[str, Any] = run_scenario("tests.distributed.balance")[-1]
    return values


@pytest.mark.parametrize("name", [name for name in ARRANGEMENTS if name != "one process"])
def test_every_engine_has_the_same_balance(curves: dict[str, Any], name: str) -> None:
    found, single = curves[name], curves["one process"]
    assert "error" not in found, found["error"]
    for key in ("loss", "balance", "grad_norm"):
        assert found[key] == pytest.approx(single[key], rel=2e-6), key
    for key in ("router_load_max", "router_load_min"):
        assert found[key] == single[key]


def test_the_term_moves_the_routers(curves: dict[str, Any]) -> None:
    with_term, without = curves["one process"], curves["without the term"]
    assert with_term["grad_norm"][0] > 1.005 * without["grad_norm"][0]
    assert with_term["router_load_max"][-1] < without["router_load_max"][-1]
