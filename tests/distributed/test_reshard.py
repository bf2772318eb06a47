"""A run that changes engine and number of ranks ends as one left alone: same ledger, same losses."""

from __future__ import annotations

import pytest

from tests.distributed.reshard import BOUND, CHAINS
from tests.scenario import run_scenario


@pytest.mark.parametrize(("chain", "adapter"), [("both", "none"), ("both", "lora")])
def test_other_engines_and_ranks_continue_the_same_run(chain: str, adapter: str) -> None:
    found = run_scenario("tests.distributed.reshard", chain, adapter)[-1]
    assert found["attempts"] == len(CHAINS[chain])
    assert 0 < found["stopped_at"][0] < found["stopped_at"][1]
    assert max(found["loss"], found["eval_loss"], found["grad_norm"]) <= BOUND
