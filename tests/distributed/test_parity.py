"""The same ten steps in every arrangement, beside a plain loop and transformers.Trainer; and the mistakes it must notice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.parity import BOUND, GUARDED, MODELS, MUTANT_VARIANTS, RATES, VARIANTS, agree, worst_difference
from tests.scenario import run_scenario

CASES = [f"{model}/{optimizer}" for model in MODELS for optimizer in RATES]


@pytest.fixture(scope="module")
def curves() -> dict[str, Any]:
    """Runs everything once, in a process that forks its ranks: pytest's own may have threads."""
    values: dict[str, Any] = run_scenario("tests.distributed.parity")[-1]
    return values


def checked(curve: dict[str, Any]) -> dict[str, Any]:
    """Returns the curve; a run that failed shows its output."""
    assert "error" not in curve, curve["error"]
    return curve


def test_documents_are_packed(curves: dict[str, Any]) -> None:
    assert 2 * curves["rows"]["true"] < curves["rows"]["false"]


@pytest.mark.parametrize("variant", [*VARIANTS, "plain loop, reversed"])
@pytest.mark.parametrize("case", CASES)
def test_every_arrangement_is_the_plain_loop(curves: dict[str, Any], case: str, variant: str) -> None:
    found = curves["whole"][case]
    plain = checked(found["plain loop"])
    assert agree(checked(found[variant]), plain), f"{worst_difference(found[variant], plain):.1e} > {BOUND:.0e}"
    assert plain["loss"][-1] < plain["loss"][0] - 1


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "one process"])
@pytest.mark.parametrize("case", CASES)
def test_every_arrangement_is_one_process(curves: dict[str, Any], case: str, variant: str) -> None:
    found = curves["whole"][case]
    assert agree(checked(found[variant]), checked(found["one process"]))


@pytest.mark.parametrize("other", ["trainer", "trainer, accumulation", "plain loop"])
@pytest.mark.parametrize("case", CASES)
def test_trainer_on_our_batches_has_our_losses(curves: dict[str, Any], case: str, other: str) -> None:
    found = curves["batches"][case]
    assert agree(checked(found["aisc"]), checked(found[other]))


@pytest.mark.parametrize(("mutant", "variant"), MUTANT_VARIANTS)
def test_a_known_mistake_is_noticed(curves: dict[str, Any], mutant: str, variant: str) -> None:
    whole = curves["whole"][f"{MODELS[0]}/sgd"]
    wrong = checked(curves["mutants"][f"{mutant}/{variant}"])
    assert len(wrong["loss"]) == len(whole["plain loop"]["loss"])
    assert not agree(wrong, whole["plain loop"])
    assert not agree(wrong, whole["one process"])
    # The same run without the mistake passes the same comparison.
    assert agree(whole[variant], whole["plain loop"])


@pytest.mark.parametrize(("mutant", "variant"), GUARDED)
def test_leaking_documents_stop_a_run_before_step_1(curves: dict[str, Any], mutant: str, variant: str) -> None:
    assert "failed: reference check" in curves["guarded"][f"{mutant}/{variant}"]["error"]
