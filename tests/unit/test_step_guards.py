"""Slow ranks, spikes of the loss and differing replicas are found; ordinary steps are let pass."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from configs.errors import RunFailed
from configs.jsonlines import LineFile, read_lines
from configs.schema import GuardSection
from train.guards import blame_non_finite, non_finite_gradients
from train.pace import WINDOWS, Pace, Straggler
from train.replicas import compare_replicas, hash_bits
from train.spikes import SpikePolicy
from train.state import RunState

POLICY = SpikePolicy("skip", sigma=10.0, window=100, limit=3, rewind=2)


def losses(count: int, seed: int = 0) -> list[float]:
    """A curve that falls, with the noise of batches."""
    chance = random.Random(seed)
    return [2.0 + 0.5 * math.exp(-step / 50) + chance.gauss(0.0, 0.1) for step in range(count)]


def named_in(pace: Pace, times: list[float], steps: int) -> list[Straggler]:
    return [found for _ in range(steps) for found in pace.take(times)]


def test_a_rank_is_named_once_after_several_slow_windows() -> None:
    pace = Pace(0, 4, ratio=1.5, window=10)
    slow = [0.1, 0.1, 0.2, 0.11]
    assert not named_in(pace, slow, 10 * WINDOWS - 1)
    (found,) = named_in(pace, slow, 1)
    assert (found.rank, round(found.ratio, 3)) == (2, 2.0)
    assert not named_in(pace, slow, 100)
    assert not named_in(pace, [0.1] * 4, 10)
    assert [found.rank for found in named_in(pace, slow, 10 * WINDOWS)] == [2]


@pytest.mark.parametrize("times", [[0.1, 0.14], [0.001, 0.004], [0.0, 0.0]])
def test_small_differences_are_no_straggler(times: list[float]) -> None:
    assert not named_in(Pace(0, 2, ratio=1.5, window=5), times, 50)


def test_with_two_ranks_each_is_compared_with_the_other() -> None:
    assert [found.rank for found in named_in(Pace(0, 2, ratio=1.5, window=5), [0.1, 0.16], 15)] == [1]


def test_each_rank_fills_its_own_place() -> None:
    pace = Pace(1, 3)
    pace.begin()
    pace.pause()
    pace.begin()
    first, own, last = pace.slots()
    assert (first, last) == (0.0, 0.0) and own > 0
    assert Pace(0, 1).slots() == []
    figures = pace.figures([0.1, 0.4, 0.2])
    assert figures == {"step_time_max": 0.4, "step_time_median": 0.2, "slowest_rank": 1}


@pytest.mark.parametrize("seed", range(20))
def test_ordinary_losses_are_no_spikes(seed: int) -> None:
    curve = losses(400, seed)
    assert not [step for step in range(400) if POLICY.judge(curve[max(0, step - 100) : step], curve[step])]


def test_a_jump_is_a_spike_and_says_its_figures() -> None:
    verdict = POLICY.judge(losses(100), 4.5)
    assert verdict is not None and "loss 4.5 is above" in str(verdict) and 2.0 < verdict.median < 2.5
    assert POLICY.judge(losses(10), 4.5) is None, "too few losses are known"
    assert SpikePolicy("off", 10.0, 100, 3, 2).judge(losses(100), 4.5) is None


def test_losses_that_hardly_move_have_no_spikes_below_a_percentage() -> None:
    assert POLICY.judge([1.0] * 50, 1.09) is None
    assert POLICY.judge([1.0] * 50, 1.2) is not None


def test_what_is_remembered_is_state_and_only_when_looked_at() -> None:
    state = RunState()
    for loss in losses(150):
        POLICY.remember(state, loss)
    assert state.losses == losses(150)[-100:]
    assert RunState.from_json(state.to_json()).losses == state.losses
    off = RunState()
    SpikePolicy("off", 10.0, 100, 3, 2).remember(off, 1.0)
    assert off.losses == []


def test_positions_left_out() -> None:
    assert POLICY.positions_before(12, 8) == [10, 11, 12]
    assert POLICY.positions_before(9, 8) == [8, 9]
    state = RunState(position=5)
    state.leave_out([7, 5])
    assert state.next_position() == 6 and state.skipped_before(6) == [5]
    state.position = 7
    assert state.next_position() == 8 and state.skipped_before(8) == [7]


def test_lines_after_a_step_are_cut_off(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines")
    for step in (1, 2, 3, 4):
        file.append({"step": step})
    file.keep_until(2)
    file.append({"step": 3, "again": True})
    file.close()
    assert read_lines(tmp_path / "lines") == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


class Holding:
    """An engine that holds some tensors in common with others."""

    def __init__(self, **tensors: Tensor) -> None:
        self.tensors = tensors

    def replicas(self) -> dict[str, Tensor]:
        return self.tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_a_flipped_bit_changes_the_hash(dtype: torch.dtype) -> None:
    tensor = (torch.randn(1500, generator=torch.Generator().manual_seed(0)) * 50).to(dtype)
    before = hash_bits({"w": tensor})["w"]
    word = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    for place in (0, 700, 1499):
        for bit in (0, 5):
            changed = tensor.clone()
            changed.view(word)[place] ^= 1 << bit
            assert hash_bits({"w": changed})["w"] != before
    swapped = tensor.clone()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert tensor[0] == tensor[1] or hash_bits({"w": swapped})["w"] != before


def test_one_process_has_nobody_to_differ_from() -> None:
    assert compare_replicas(Holding(w=torch.ones(3)), 5, dict) == 1
    assert compare_replicas(Holding(), 5, dict) == 0, "an engine that shards everything holds nothing twice"


def test_gradients_that_are_not_finite_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert non_finite_gradients(model.named_parameters()) == ()
    model[1].bias.grad = torch.tensor([0.0, math.nan])
    assert non_finite_gradients(model.named_parameters()) == ("1.bias",)
    said = blame_non_finite(None, [], ("1.bias",), 2.0)  # type: ignore[arg-type]
    assert said.startswith("every loss is finite, these gradients are not: 1.bias")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"hang_timeout": "12:30"}, "guard.hang_timeout=12:30: expected a time"),
        ({"hang_timeout": "1"}, "guard.hang_timeout=1: expected 5 s or more, or 0 for never"),
        ({"straggler_ratio": 0.5}, "guard.straggler_ratio=0.5: expected more than 1"),
        ({"spike_sigma": 0.0}, "guard.spike_sigma=0: expected more than 0"),
        ({"spike_window": 5}, "guard.spike_window=5: expected 10 or more"),
        ({"weights_check": -1}, "guard.weights_check=-1: expected 0 or more"),
    ],
)
def test_bad_values_are_refused(values: dict[str, object], problem: str) -> None:
    (found,) = GuardSection(**values).problems()  # type: ignore[arg-type]
    assert found.startswith(problem)
    assert GuardSection().problems() == []


@pytest.mark.parametrize(
    ("action", "limit", "words"),
    [
        ("stop", 3, r"Nothing was updated.* guard.spike=skip leaves such a batch out, guard.spike=off"),
        ("skip", 0, r"It is spike number 1 \(guard.spike_limit=0\).* guard.spike_limit=1 leaves it out too, guard.spike=off"),
    ],
)
def test_a_spike_that_stops_names_the_batch(action: str, limit: int, words: str) -> None:
    from train.step import StepOutcome
    from train.step_guards import StepGuards, no_event

    policy = SpikePolicy(action, 10.0, 100, limit, 2)
    guards = StepGuards(Pace(0, 1), policy, object(), 0, dict, lambda state: False, no_event, print)
    state = RunState(step=12, position=12, losses=losses(100))
    outcome = StepOutcome(9.0, {}, {}, math.nan, False, False, refused=True)
    with pytest.raises(RunFailed, match=r"step 13: loss 9 is above .* \(position 12\) holds row 3 \(notes: lines 1\)") as error:
        guards.leave_out(state, 12, outcome, lambda: "row 3 (notes: lines 1)")
    assert state.skip == [] and re.search(words, str(error.value))
