"""configs/memory.py against four running ranks: every storage of weights, gradients and optimizer state, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from configs import compose
from configs.facts import Facts, Shape
from configs.site import Site
from launch.plan import make_plan
from launch.plan.figures import GB
from tests.distributed.memory_case import CASES, DEEPSPEED, LENGTH, RANKS, ROWS, VALUES, ZERO, case_name
from tests.scenario import run_scenario

BOUND = 0.02
NAMES = [case_name(*case) for case in CASES]
# ZeRO-3 keeps its bucket for the whole run; ZeRO-1, measured between micro-batches, until gradients are reduced.
WITH_BUCKET = ("zero1 fp32", "zero3 fp32", "zero3 bf16")
PARTS = ("parameters", "gradients", "optimizer")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Runs everything once, in a process that forks its ranks: pytest's own may have threads."""
    values: dict[str, Any] = run_scenario("tests.distributed.memory_case")[-1]
    return values


def test_the_model_has_about_120_million_parameters(measured: dict[str, Any]) -> None:
    assert measured["parameters"] == pytest.approx(120e6, rel=0.05)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("case", NAMES)
def test_unique_storages_are_what_the_formula_says(measured: dict[str, Any], case: str, part: str) -> None:
    assert len(measured["cases"][case]) == RANKS
    for rank in measured["cases"][case]:
        assert rank["held"][part] == pytest.approx(rank["expected"][part], rel=BOUND)


def planned(name: str, precision: str, layers: int, is_reward: bool) -> dict[str, float]:
    """Returns the bytes by part that `aisc plan` shows for a case."""
    values = {**VALUES, "num_hidden_layers": layers}
    loaded = compose.load(
        [
            "model.random_weights=true",
            *(f"model.arch.{key}={value}" for key, value in values.items()),
            f"data.sequence_length={LENGTH}",
            f"training.micro_batch_size={ROWS}",
            f"training.precision={precision}",
            "training.duration=3 steps",
            f"engine.name={name}",
            *(["objective=reward"] if is_reward else []),
        ]
    )
    facts = Facts(num_gpus=0, model=values, world_size=RANKS)
    config = compose.resolve(loaded.config, facts).config
    if name.startswith("zero"):
        config.engine.deepspeed = DEEPSPEED
    column = make_plan(config, Site(), Shape(RANKS, 0, 1, 1), facts).column
    return {part: (column.memory[part].value or 0.0) * GB for part in PARTS}


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_plan_shows_what_the_fullest_rank_holds(measured: dict[str, Any], case: tuple[str, str, int, bool]) -> None:
    shown = planned(*case)
    for part in PARTS:
        held = max(rank["held"][part] for rank in measured["cases"][case_name(*case)])
        assert held == pytest.approx(shown[part], rel=BOUND), part


@pytest.mark.parametrize("case", NAMES)
def test_nothing_else_is_held(measured: dict[str, Any], case: str) -> None:
    for rank in measured["cases"][case]:
        known = sum(rank["held"][part] for part in PARTS)
        if case in WITH_BUCKET:
            known += 4 * ZERO.bucket
        assert rank["held"]["all"] == pytest.approx(known, rel=BOUND)


def test_resident_memory_falls_from_engine_to_engine(measured: dict[str, Any]) -> None:
    resident = [
        max(rank["held"]["resident"] for rank in measured["cases"][f"{name} fp32"])
        for name in ("ddp", "zero1", "zero2", "zero3", "fsdp2")
    ]
    print("resident MB:", [size // 10**6 for size in resident])
    # ZeRO-3 keeps fp32 masters beside fp32 weights, which FSDP2 does not: 4 bytes of 20 a parameter.
    assert resident == sorted(resident, reverse=True)
