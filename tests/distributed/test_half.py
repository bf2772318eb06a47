"""fp16 learns what fp32 learns, whoever holds the weights; an overflow costs no batch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.half import RANKS, SCALE, WAYS
from tests.scenario import run_scenario

# Relative differences of loss and gradient norm from fp32: 11 bits of mantissa, seen 7e-6 and 4e-4.
BOUNDS = {"loss": 2e-4, "grad_norm": 2e-3}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    values: dict[str, Any] = run_scenario("tests.distributed.half")[-1]
    return values


@pytest.mark.parametrize("way", WAYS)
def test_fp16_is_fp32_after_overflows_on_which_all_ranks_agree(found: dict[str, Any], way: str) -> None:
    half, plain = found[way], found["lora" if "lora" in way else "full"]
    for key, bound in BOUNDS.items():
        assert half[key] == pytest.approx(plain[key], rel=bound) and half[key] != plain[key]
    assert half["head"] == plain["head"], "the same batches in the same order"
    ranks = half["overflows"]
    assert len(ranks) == RANKS and all(scales == ranks[0] for scales in ranks)
    assert len(ranks[0]) >= 2 and ranks[0] == [SCALE / 2**n for n in range(len(ranks[0]))]
