"""Balance of experts: the loss against a plain loop over documents, additive over them, the load over real tokens only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.errors import ConfigError
from configs.runfolder import RunFolder
from data_pipelines.collate import Batch, collate
from data_pipelines.index import Store
from tests.small_store import small_store
from tests.written_run import NIGHT, WrittenRun
from train import attention
from train.adapters import recompute_activations
from train.objectives.sft import Sft
from train.report.curves import experts
from train.router import AFFINITIES, Balanced, Router, affinities, balance_loss, moe_blocks, routers
from train.scores import Scores

LENGTHS = [5, 1, 12, 7]
NUM_EXPERTS, CHOSEN = 6, 2
SHAPE = {
    "vocab_size": 500,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "deepseek_v3": {
        "moe_intermediate_size": 16,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "qwen3_moe": {"moe_intermediate_size": 16, "num_experts": 8, "num_experts_per_tok": 2, "head_dim": 8},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
}


def plainly(logits: Tensor, indices: Tensor, lengths: list[int], real: list[bool], kind: str) -> Tensor:
    """Equations 17 to 20, one document, one expert, one token at a time."""
    total = torch.zeros((), dtype=logits.dtype)
    begin = 0
    for length, counts in zip(lengths, real, strict=True):
        tokens = range(begin, begin + length)
        begin += length
        for expert in range(NUM_EXPERTS if counts else 0):
            chosen = sum(int((indices[t] == expert).any()) for t in tokens)
            frequency = NUM_EXPERTS / (CHOSEN * length) * chosen
            affinity = torch.zeros((), dtype=logits.dtype)
            for t in tokens:
                scores = logits[t].sigmoid() if kind == "sigmoid" else logits[t].exp()
                affinity = affinity + scores[expert] / scores.sum()
            total = total + frequency * affinity / length
    return total


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits in float64 that want a gradient, and the experts chosen by them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(sum(LENGTHS), NUM_EXPERTS, dtype=torch.float64, generator=generator).requires_grad_()
    return logits, logits.detach().topk(CHOSEN, dim=-1).indices


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize("real", [[True, True, True, True], [True, False, True, False], [False] * 4])
def test_value_and_gradient_are_those_of_a_plain_loop(kind: str, real: list[bool]) -> None:
    logits, indices = drawn()
    value = balance_loss(logits, indices, torch.tensor(LENGTHS, dtype=torch.int32), torch.tensor(real), kind)
    (gradient,) = torch.autograd.grad(value, logits)
    other, _ = drawn()
    expected = plainly(other, indices, LENGTHS, real, kind) + 0.0 * other.sum()
    (wanted,) = torch.autograd.grad(expected, other)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-12)


def test_an_even_load_is_one_and_a_collapsed_one_is_experts_over_chosen() -> None:
    even = torch.arange(12).view(6, 2) % NUM_EXPERTS
    one, zero = torch.tensor([6]), torch.zeros(6, NUM_EXPERTS)
    assert balance_loss(zero, even, one, torch.tensor([True]), "softmax").item() == pytest.approx(1.0)
    collapsed = torch.full((6, NUM_EXPERTS), -50.0)
    collapsed[:, :CHOSEN] = 0.0
    same = torch.arange(CHOSEN).expand(6, CHOSEN)
    assert balance_loss(collapsed, same, one, torch.tensor([True]), "softmax").item() == pytest.approx(NUM_EXPERTS / CHOSEN)


def test_documents_together_are_documents_apart() -> None:
    logits, indices = drawn()
    together = balance_loss(logits, indices, torch.tensor(LENGTHS), torch.ones(4, dtype=torch.bool), "sigmoid")
    parts = zip(logits.split(LENGTHS), indices.split(LENGTHS), strict=True)
    apart = [balance_loss(part, chosen, torch.tensor([len(part)]), torch.tensor([True]), "sigmoid") for part, chosen in parts]
    torch.testing.assert_close(together, torch.stack(apart).sum(), rtol=1e-12, atol=0.0)


def model_of(family: str, implementation: str = attention.VARLEN_CPU) -> nn.Module:
    """A small model with experts, its routers drawn so that they choose unevenly."""
    from transformers import AutoConfig, AutoModelForCausalLM

    attention.register()
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE, **FAMILIES[family])
    model: nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation=implementation).train()
    for router in routers(model):
        nn.init.normal_(router.weight, std=0.5)  # type: ignore[arg-type]
    return model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("store"), [9, 7, 11, 20, 3, 8, 5, 30])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same documents, one a row."""
    return small_store(tmp_path_factory.mktemp("alone"), [9, 7, 11, 20, 3, 8, 5, 30], packing=False)


def balance_of(model: nn.Module, batches: list[Batch]) -> tuple[float, Tensor, dict[str, float]]:
    """The balance of `batches`, the gradient of the routers, the figures."""
    router = Router(model, weight=1e-2)
    scores, objective = Scores(model, precision="fp32", router=router), Balanced(Sft(), router)
    model.zero_grad()
    total = 0.0
    for batch in batches:
        (_, balance) = objective.loss(scores(batch), batch)
        balance.sum.backward()
        total += balance.sum.item()
    gradient = torch.cat([r.weight.grad.flatten() for r in routers(model)])  # type: ignore[union-attr,operator]
    return total, gradient, router.figures()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("implementation", [attention.VARLEN_CPU, "sdpa"])
def test_packed_rows_empty_rows_and_rows_alone_are_the_same(
    family: str, implementation: str, store: Store, alone: Store
) -> None:
    model = model_of(family, implementation)
    rows = np.arange(store.num_rows)
    packed = balance_of(model, [collate(store, np.append(rows, [-1, -1]), 0)])
    accumulated = balance_of(model, [collate(store, np.array([row]), 0) for row in rows])
    single = balance_of(model, [collate(alone, np.array([row]), 0) for row in range(alone.num_rows)])
    assert store.num_rows < alone.num_rows
    for other in (accumulated, single):
        assert other[0] == pytest.approx(packed[0], rel=1e-5)
        torch.testing.assert_close(other[1], packed[1], rtol=1e-4, atol=1e-7)
        assert other[2] == packed[2]
    assert packed[1].abs().max() > 0
    assert 1.05 < packed[2]["router_load_max"] < 4
    assert 0 <= packed[2]["router_load_min"] < 0.95


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", ["full", "selective"])
def test_recomputation_changes_nothing(family: str, what: str, store: Store) -> None:
    batch = [collate(store, np.arange(store.num_rows), 0)]
    model = model_of(family)
    plain = balance_of(model, batch)
    recompute_activations(model, what)
    again = balance_of(model, batch)
    assert again[0] == plain[0] and again[2] == plain[2]
    torch.testing.assert_close(again[1], plain[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_affinities_are_those_that_the_router_weighs_by(family: str) -> None:
    (router, *_) = routers(model_of(family))
    logits, weights, indices = router(torch.randn(1, 40, 32))
    share = affinities(logits, AFFINITIES[type(router).__name__]).gather(1, indices)
    torch.testing.assert_close(F.normalize(share, p=1, dim=1), F.normalize(weights, p=1, dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_blocks_that_zero3_must_fetch_whole(family: str) -> None:
    (block,) = moe_blocks(model_of(family))
    assert block.__name__ in ("DeepseekV3MoE", "Qwen3MoeSparseMoeBlock", "MixtralSparseMoeBlock")


def test_a_dense_model_has_no_such_block() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    assert moe_blocks(LlamaForCausalLM(LlamaConfig(**SHAPE))) == []


def test_evaluation_counts_nothing_and_a_router_that_is_not_known_is_refused(store: Store) -> None:
    model = model_of("qwen3_moe")
    router = Router(model)
    scores = Scores(model, precision="fp32", router=router)
    batch = collate(store, np.array([0]), 0)
    scores.eval()
    with torch.no_grad():
        scores(batch)
    assert router.figures() == {}

    class StrangeTopKRouter(nn.Module):
        pass

    model.extra = StrangeTopKRouter()
    with pytest.raises(ConfigError, match="StrangeTopKRouter is not known; expected 0, or one of Deepseek"):
        Router(model, weight=1e-4)


def test_documents_are_counted_as_a_unit(store: Store) -> None:
    batch = collate(store, np.array([0, -1]), 0)
    units = Balanced(Sft(), Router(model_of("mixtral"), weight=1.0)).units(batch)
    assert units == {"tokens": batch.num_targets, "documents": len(store.row_documents(0))}


def test_the_report_shows_how_evenly_experts_are_used(tmp_path: Path) -> None:
    written = WrittenRun(tmp_path)
    attempt = written.attempt(at=NIGHT, steps=[(1, NIGHT + 1), (2, NIGHT + 2), (3, NIGHT + 3)])
    assert experts(RunFolder(written.path)) is None
    lines = [json.loads(line) for line in attempt.metrics_path.read_text().splitlines()]
    loads = [(1.5, 0.6), (2.5, 0.25), (4.0, 0.0)]
    figures = [{**line, "router_load_max": most, "router_load_min": least} for line, (most, least) in zip(lines, loads, strict=True)]
    attempt.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in figures))
    shown = experts(RunFolder(written.path))
    assert shown is not None
    assert shown.rows == (("1", "1.50", "0.60"), ("2", "2.50", "0.25"), ("3", "4.00", "0.00"))
