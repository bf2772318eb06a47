"""Shapes written down from config.json against the models that transformers and peft build (no memory: meta device)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

import configs
from configs.model_shapes import Parameter, numel, parameters_of, with_lora

FOLDER = Path(configs.__file__).parent / "model"
PRESETS = {
    path.stem: dict(yaml.safe_load(path.read_text(encoding="utf-8"))["arch"]) for path in sorted(FOLDER.glob("*.yaml"))
}
SMALL = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
LATENT = {
    "model_type": "deepseek_v3",
    **SMALL,
    "moe_intermediate_size": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama with biases": {"model_type": "llama", **SMALL, "attention_bias": True, "mlp_bias": True},
    "llama of defaults": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen2 of defaults": {"model_type": "qwen2"},
    "qwen3 with biases": {"model_type": "qwen3", **SMALL, "num_key_value_heads": 2, "attention_bias": True},
    "deepseek of defaults": {"model_type": "deepseek_v3"},
    "deepseek with full queries": {**LATENT, "q_lora_rank": None, "first_k_dense_replace": 1},
    "deepseek with biases": {**LATENT, "q_lora_rank": 6, "first_k_dense_replace": 0, "attention_bias": True},
}
TINY = [name for name in PRESETS if name.startswith("tiny_")]


def real(values: dict[str, Any], kind: Any = AutoModelForCausalLM, **more: Any) -> nn.Module:
    values = dict(values)
    config = AutoConfig.for_model(values.pop("model_type"), **values, **more)
    with torch.device("meta"):
        model: nn.Module = kind.from_config(config)
    return model


def known(values: dict[str, Any], *, is_reward: bool = False) -> list[Parameter]:
    found = parameters_of(values, is_reward=is_reward)
    assert found is not None
    return found


@pytest.mark.parametrize("values", [*PRESETS.values(), *VARIANTS.values()], ids=[*PRESETS, *VARIANTS])
def test_names_shapes_and_order_are_those_of_the_model(values: dict[str, Any]) -> None:
    model = real(values)
    assert [(p.name, p.shape) for p in known(values)] == [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    assert numel(known(values)) == model.num_parameters()


@pytest.mark.parametrize("name", [*TINY, "llama of defaults", "qwen2", "deepseek with full queries"])
def test_a_reward_model_has_a_head_of_one_row(name: str) -> None:
    values = {**PRESETS, **VARIANTS}[name]
    model = real(values, AutoModelForSequenceClassification, num_labels=1)
    found = known(values, is_reward=True)
    assert [(p.name, p.shape) for p in found] == [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    assert found[-1].shape == (1, values.get("hidden_size", 4096))


@pytest.mark.parametrize("values", [*PRESETS.values(), *VARIANTS.values()], ids=[*PRESETS, *VARIANTS])
def test_linear_layers_are_those_of_the_model(values: dict[str, Any]) -> None:
    linear = {f"{name}.weight" for name, module in real(values).named_modules() if isinstance(module, nn.Linear)}
    assert {p.name for p in known(values) if p.kind == "linear"} == linear - {"lm_head.weight"}


ADAPTERS: list[dict[str, Any]] = [
    {"target_modules": ["all-linear"]},
    {"target_modules": ["o_proj", "down_proj"]},
    {"target_modules": ["gate_proj", "up_proj"]},
    {"target_modules": ["o_proj"], "modules_to_save": ["norm"]},
    {"target_modules": ["q_b_proj", "q_proj"], "dora": True},
]


@pytest.mark.parametrize("name", [*TINY, "qwen2"])
@pytest.mark.parametrize("section", ADAPTERS, ids=str)
def test_lora_adds_what_peft_adds(name: str, section: dict[str, Any]) -> None:
    targets = section["target_modules"]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        modules_to_save=section.get("modules_to_save"),
        use_dora=section.get("dora", False),
    )
    values = dict({**PRESETS, **VARIANTS}[name])
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, config)
    expected = {(name, tuple(p.shape), p.requires_grad) for name, p in adapted.named_parameters()}
    found = with_lora(known({**PRESETS, **VARIANTS}[name]), rank=4, **section)
    assert {(p.name, p.shape, p.is_trained) for p in found} == expected
    assert len(found) == len(expected)
    assert (numel(found, trained=True), numel(found)) == adapted.get_nb_trainable_parameters()


def test_an_unknown_family_has_no_shapes() -> None:
    assert parameters_of({"model_type": "mamba", **SMALL}) is None
    assert parameters_of({}) is None
    assert parameters_of({"model_type": "llama", **SMALL, "quantization_config": {"bits": 4}}) is None
    assert parameters_of({"model_type": "llama", **SMALL, "hidden_size": "16"}) is None
    assert parameters_of({"model_type": "llama", **SMALL, "num_attention_heads": 0}) is None
