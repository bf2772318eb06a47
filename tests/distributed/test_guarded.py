"""What the guards make of a jump of the loss, of a NaN in a gradient, of a slow rank."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.guarded import SAVE_EVERY, SECOND, SPIKE, STEPS
from tests.distributed.rehearsed import FITS
from tests.scenario import run_scenario


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    values: dict[str, Any] = run_scenario("tests.distributed.guarded")[-1]
    return values


def test_an_ordinary_run_has_no_spikes(found: dict[str, Any]) -> None:
    assert found["plain"]["spikes"] == [] and found["plain"]["positions"] == list(range(STEPS))


def test_a_batch_left_out_gives_the_ledger_of_a_run_told_beforehand(found: dict[str, Any]) -> None:
    skip, told = found["skip"], found["told to skip"]
    assert skip["positions"] == [p for p in range(STEPS + 1) if p != SPIKE]
    assert (skip["head"], skip["losses"]) == (told["head"], told["losses"])
    assert skip["head"] != found["plain"]["head"]
    (event,) = skip["spikes"]
    assert event["left_out"] == [SPIKE] and event["step"] == SPIKE + 1
    assert f"batch {SPIKE} left out" in skip["said"][0]
    assert told["spikes"] == []


def test_two_ranks_decide_alike(found: dict[str, Any]) -> None:
    assert found["skip, 2 ranks"]["head"] == found["skip"]["head"]
    assert found["skip, 2 ranks"]["losses"] == pytest.approx(found["skip"]["losses"], rel=1e-5)


def test_a_run_continued_after_a_batch_was_left_out(found: dict[str, Any]) -> None:
    continued = found["skip, continued"]
    assert (continued["head"], continued["losses"]) == (found["skip"]["head"], found["skip"]["losses"])


def test_a_rollback_leaves_out_what_led_to_the_spike_and_to_one_before_it(found: dict[str, Any]) -> None:
    back, told = found["rollback, 2 ranks"], found["told to skip six"]
    assert back["head"] == told["head"]
    assert back["losses"] == pytest.approx(told["losses"], rel=1e-5)
    first, second = back["spikes"]
    assert first["left_out"] == [SPIKE - 2, SPIKE - 1, SPIKE] and second["left_out"] == [SECOND - 2, SECOND - 1, SECOND]
    assert first["back_to"] == second["back_to"] == SPIKE // SAVE_EVERY * SAVE_EVERY


def test_a_spike_that_stops_is_said_once(found: dict[str, Any]) -> None:
    end = found["stop, 2 ranks"]
    assert (end["code"], end["kind"], end["said"], end["traceback"]) == (1, "failed", 1, False)
    assert end["cause"].startswith(f"step {SPIKE + 1}: loss ") and f"(position {SPIKE}) holds row" in end["cause"]


def test_a_gradient_that_is_not_finite_is_named(found: dict[str, Any]) -> None:
    end = found["not a number"]
    assert (end["said"], end["traceback"]) == (1, False)
    assert end["cause"].startswith("step 12: loss ") and "these gradients are not: " in end["cause"]
    assert "layers.0.self_attn" in end["cause"] and "Nothing was updated" in end["cause"]


def test_a_slow_rank_is_named_once(found: dict[str, Any]) -> None:
    (event,) = found["slow"]["events"]
    assert event["rank"] == 1 and event["name"].startswith("rank 1 (host ")
    assert event["step_time"] > event["others"] + 0.15
    slowest = found["slow"]["slowest"]
    assert len(slowest) == STEPS - 1 and slowest.count(1) > 0.9 * len(slowest)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_an_engine_on_which_memory_ran_out_trains_as_ever(found: dict[str, Any], engine: str) -> None:
    for rank in found["retried"][engine]:
        assert rank["rows"] == FITS
        assert rank["steps"] == rank["plain"] and all(norm > 0 for _, norm in rank["steps"])
