"""Adapters: what is trained, how it is drawn, what it computes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from configs.errors import ConfigError
from configs.schema import AdapterSection
from train import adapters

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def attached(seed: int = 1, **section: Any) -> nn.Module:
    return adapters.attach(tiny(), AdapterSection(name="lora", **section), seed)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_all_linear_is_every_layer_but_the_head() -> None:
    names = {name.split(".")[-4] for name in trained(attached(rank=2))}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    # Per layer: 4 square matrices of 16 and 3 of 16 x 32, each with rank 2 * (in + out); two layers.
    assert adapters.trained_parameters(attached(rank=2))[0] == 2 * (4 * 2 * 32 + 3 * 2 * 48)


def test_named_layers_and_modules_to_save() -> None:
    names = list(trained(attached(target_modules=["q_proj"], modules_to_save=["embed_tokens"])))
    assert {name.split(".lora_")[0].split(".")[-1] for name in names if "lora_" in name} == {"q_proj"}
    assert [name for name in names if "embed_tokens.modules_to_save" in name]


def test_a_new_adapter_changes_nothing() -> None:
    ids = torch.arange(10)[None]
    with torch.no_grad():
        torch.testing.assert_close(attached().eval()(ids).logits, tiny().eval()(ids).logits, rtol=0, atol=0)


def test_drawn_by_name_and_seed_alone() -> None:
    torch.manual_seed(5)
    one = {name: p.clone() for name, p in trained(attached()).items()}
    torch.manual_seed(6)
    again, other = trained(attached()), trained(attached(seed=2))
    for name, value in one.items():
        assert torch.equal(value, again[name]), name
        if ".lora_A." in name:
            assert not torch.equal(value, other[name])
            # Kaiming uniform with a = sqrt(5) is U(-1, 1) / sqrt(fan_in).
            assert value.abs().max() <= 1 / math.sqrt(value.shape[1])


@pytest.mark.parametrize(("rslora", "factor"), [(False, 32 / 16), (True, 32 / math.sqrt(16))])
def test_scaling(rslora: bool, factor: float) -> None:
    scalings = {m.scaling["default"] for m in attached(rslora=rslora).modules() if isinstance(getattr(m, "scaling", None), dict)}
    assert scalings == {factor}


def test_dora_adds_a_magnitude_per_output() -> None:
    assert any("lora_magnitude_vector" in name for name in trained(attached(dora=True)))


def test_no_such_layer_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"adapter.target_modules=\['qproj'\].*down_proj, gate_proj"):
        attached(target_modules=["qproj"])


@pytest.mark.parametrize("what", ["selective", "full"])
@pytest.mark.parametrize("with_adapter", [False, True])
def test_recomputing_activations_gives_the_same_gradients(with_adapter: bool, what: str) -> None:
    ids = torch.arange(12)[None]
    found = []
    for recompute in ("none", what):
        model = attached() if with_adapter else tiny()
        adapters.recompute_activations(model, recompute)
        model.train()
        model(ids, labels=ids, use_cache=False).loss.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and found[0]
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name])
