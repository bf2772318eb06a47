"""The rehearsal is as large as any step that comes, leaves nothing behind, and finds the micro-batch by failing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from transformers.masking_utils import find_packed_sequence_indices

from configs.errors import RunFailed
from configs.schema import EngineSection, ModelSection, OptimizerSection, TrainingSection
from data_pipelines.collate import Batch
from train import models
from train.attention import VARLEN_CPU
from train.distributed import Context
from train.engines.ddp import DdpEngine
from train.objectives import Sft
from train.optimizer import build_optimizer
from train.rehearsal import largest_micro_batch, rehearse, worst_batch
from train.scores import Scores
from train.shards import LocalShard

CPU = torch.device("cpu")
VOCABULARY, LENGTH = 64, 16
ARCH = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
}


class Recording(DdpEngine):
    """Notes which tensors it is asked for, as at a save."""

    saved: frozenset[str] = frozenset()

    def state(self) -> dict[str, list[LocalShard]]:
        state = super().state()
        self.saved = frozenset(name.rsplit(".", 1)[-1] for name in state)
        return state


def small_scores() -> Scores:
    section = ModelSection(arch=ARCH, random_weights=True)
    model = models.load_model(section, dtype=torch.float32, attention_name=VARLEN_CPU, device=CPU, seed=1)
    return Scores(model, precision="fp32")


@pytest.fixture
def scores() -> Scores:
    return small_scores()


@pytest.fixture
def engine(scores: Scores) -> Recording:
    engine = Recording(EngineSection(name="ddp"), TrainingSection(precision="fp32"), Context(0, 0, 1, CPU))
    engine.prepare(scores, lambda named: build_optimizer(OptimizerSection(name="adamw"), named, 1e-3))
    return engine


def batch(rows: int) -> Batch:
    return worst_batch(rows, LENGTH, VOCABULARY, CPU)


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.fixture
def passes(engine: Recording, scores: Scores) -> Iterator[list[tuple[bool, int, int]]]:
    """Of each forward pass: whether it is one of training, parameters with optimizer state, those with a gradient."""
    seen: list[tuple[bool, int, int]] = []

    def note(module: nn.Module, arguments: Any) -> None:
        gradients = sum(parameter.grad is not None for parameter in module.parameters())
        seen.append((torch.is_grad_enabled() and module.training, len(engine.optimizer.state), gradients))

    with scores.register_forward_pre_hook(note):
        yield seen


def test_it_takes_what_a_later_step_takes_and_a_save(
    engine: Recording, scores: Scores, passes: list[tuple[bool, int, int]]
) -> None:
    rehearse(engine, scores, Sft(), batch(2))
    number = len(list(scores.parameters()))
    # Memory of the optimizer's state and that of the forward pass come together in the second step for the first time.
    assert passes == [(False, 0, 0), (True, 0, 0), (True, number, 0)]
    assert engine.saved >= {"exp_avg", "exp_avg_sq", "step", "weight"}


def test_it_leaves_nothing_behind(engine: Recording, scores: Scores) -> None:
    before, random_state, rate = weights(scores), torch.get_rng_state(), engine.optimizer.param_groups[0]["lr"]
    rehearse(engine, scores, Sft(), batch(2))
    assert all(map(torch.equal, before, weights(scores)))
    assert torch.equal(random_state, torch.get_rng_state())
    assert not engine.optimizer.state and engine.optimizer.param_groups[0]["lr"] == rate
    assert all(parameter.grad is None for parameter in scores.parameters()) and scores.training


def test_a_token_without_a_number_that_the_data_never_has_spoils_no_weight(engine: Recording, scores: Scores) -> None:
    with torch.no_grad():
        scores.get_parameter("model.model.embed_tokens.weight")[VOCABULARY - 1] = math.inf
    before = weights(scores)
    rehearse(engine, scores, Sft(), batch(VOCABULARY // LENGTH))
    assert all(map(torch.equal, before, weights(scores)))


def test_the_worst_rows_are_legal_and_need_the_mask_of_packed_ones() -> None:
    found = batch(3)
    assert found.cu_seqlens.tolist() == [0, 15, 16, 31, 32, 47, 48] and found.max_seqlen == LENGTH - 1
    assert torch.equal(found.targets, found.labels.flatten()[found.target_index + 1])
    assert found.num_targets == int((found.labels != -100).sum()) == 3 * (LENGTH - 2)
    starts = found.cu_seqlens[:-1].long()
    assert not found.position_ids.flatten()[starts].any() and (found.labels.flatten()[starts] == -100).all()
    documents = torch.bucketize(found.target_index, starts, right=True) - 1
    assert torch.equal(documents, found.target_document) and len(found.document_ids) == len(starts)
    # One document a row would be attended to without a mask, by a kernel that takes less.
    assert find_packed_sequence_indices(found.position_ids) is not None
    assert worst_batch(1, 2, VOCABULARY, CPU).num_targets == 1


def failing_beyond(scores: Scores, rows: int) -> Any:
    """Makes memory run out in the backward pass of more than `rows` rows."""

    def fail(module: nn.Module, before: Any, after: Any) -> None:
        if after[0].shape[1] > rows * LENGTH:
            raise torch.OutOfMemoryError("planted")

    return scores.model.model.layers[0].register_full_backward_hook(fail)


@pytest.mark.parametrize(("fits", "found"), [(8, 8), (5, 4), (1, 1)])
def test_the_micro_batch_is_halved_until_it_fits_beside_the_optimizers_state(
    engine: Recording, scores: Scores, passes: list[tuple[bool, int, int]], fits: int, found: int
) -> None:
    before = weights(scores)
    with failing_beyond(scores, fits):
        assert largest_micro_batch(engine, scores, Sft(), 8, batch) == found
    assert all(has_state for _, has_state, _ in passes[2:]) and len(passes) > 2
    assert all(map(torch.equal, before, weights(scores))) and not engine.optimizer.state


def test_a_row_that_does_not_fit_is_told_so(engine: Recording, scores: Scores) -> None:
    with failing_beyond(scores, 0), pytest.raises(RunFailed, match="not even one row of 16 tokens fits on this GPU"):
        largest_micro_batch(engine, scores, Sft(), 8, batch)
