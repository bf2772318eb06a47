"""Replayed routing: the experts of a reference run in another one, however it cuts its batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data_pipelines.collate import collate
from data_pipelines.index import Store
from tests.distributed.routing import Routing, weigh
from tests.small_store import small_store
from tests.unit.test_router import FAMILIES, model_of
from train.adapters import recompute_activations
from train.router import routers
from train.scores import Scores


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("store"), [9, 7, 11, 20, 3, 8, 5, 30])


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_a_router_s_own_choice_are_its_own(family: str) -> None:
    (router, *_) = routers(model_of(family))
    logits, weights, indices = router(torch.randn(1, 40, 32))
    torch.testing.assert_close(weigh(router, logits, indices).to(weights.dtype), weights, rtol=1e-6, atol=0.0)


def loss_of(model: nn.Module, routing: Routing, store: Store, parts: list[list[int]]) -> tuple[float, torch.Tensor]:
    """Loss and the routers' gradient of one step over micro-batches `parts`; -1 is an empty row."""
    scores = Scores(model, precision="fp32")
    routing.attach(scores)
    routing.step = 0
    model.zero_grad()
    total = 0.0
    for rows in parts:
        loss = -scores(collate(store, np.array(rows), 0)).sum()
        loss.backward()
        total += loss.item()
    return total, torch.cat([router.weight.grad.flatten() for router in routers(model)])  # type: ignore[union-attr,operator]


def test_a_replay_follows_the_reference_where_free_routing_would_not(store: Store, tmp_path: Path) -> None:
    rows = list(range(store.num_rows))
    recorded = Routing()
    reference = loss_of(model_of("deepseek_v3"), recorded, store, [rows])
    recorded.save(tmp_path / "routing.npz")
    # Correction biases like these change the choice and nothing else of the arithmetic.
    cut = [[row, -1] for row in reversed(rows)]

    def biased() -> nn.Module:
        model = model_of("deepseek_v3")
        recompute_activations(model, "full")
        for router in routers(model):
            router.e_score_correction_bias.copy_(torch.linspace(0, 0.5, 8))  # type: ignore[union-attr,operator]
        return model

    replay = Routing.load(tmp_path / "routing.npz")
    replayed = loss_of(biased(), replay, store, cut)
    assert replayed[0] == pytest.approx(reference[0], rel=1e-6)
    torch.testing.assert_close(replayed[1], reference[1], rtol=1e-4, atol=1e-6)
    assert 0 < replay.changed < replay.replayed
    free = loss_of(biased(), Routing(), store, cut)
    assert free[0] != pytest.approx(reference[0], rel=1e-5)


def test_nothing_is_recorded_before_the_first_step(store: Store) -> None:
    model, routing = model_of("mixtral"), Routing()
    scores = Scores(model, precision="fp32")
    routing.attach(scores)
    scores(collate(store, np.array([0]), 0))
    assert routing.choices == {}
