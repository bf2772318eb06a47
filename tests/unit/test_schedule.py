"""Learning rates by hand-derived values; decay groups; the fused kernel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from configs.schema import LrSchedulerSection, OptimizerSection
from train.optimizer import build_optimizer
from train.schedule import learning_rate


def rates(total_steps: int, **section: object) -> list[float]:
    """Returns the learning rate of every update with a peak of 1."""
    schedule = LrSchedulerSection(**section)  # type: ignore[arg-type]
    return [learning_rate(schedule, 1.0, step, total_steps) for step in range(total_steps)]


def test_warmup_rises_linearly_to_the_peak() -> None:
    assert rates(8, name="constant", warmup="4 steps") == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_linear_would_reach_its_floor_one_step_after_the_last() -> None:
    # 10 steps, no warm-up, floor 0.5: 1 - 0.5 * step / 10.
    assert rates(10, name="linear", warmup="0", min_lr_ratio=0.5) == pytest.approx([1 - 0.05 * step for step in range(10)])


def test_cosine_is_halfway_down_in_the_middle() -> None:
    found = rates(100, name="cosine", warmup="0")
    assert found[0] == 1 and found[50] == pytest.approx(0.5) and found[25] == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert found == sorted(found, reverse=True)


def test_wsd_is_flat_until_its_decay() -> None:
    found = rates(20, name="wsd", warmup="2 steps", decay="25%")
    assert found[:2] == [0.5, 1.0] and found[2:16] == [1.0] * 14
    assert found[16:] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_a_share_and_its_steps_are_the_same() -> None:
    assert rates(200, name="cosine", warmup="3%") == rates(200, name="cosine", warmup="6 steps")


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_matrices_decay_and_norms_do_not(name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    model[0].bias.requires_grad_(False)
    optimizer = build_optimizer(OptimizerSection(name=name, weight_decay=0.3), model.named_parameters(), 0.1)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(model[0].weight): 0.3, id(model[1].weight): 0.0, id(model[1].bias): 0.0}
    if name == "adamw":
        assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["fused"] is True
