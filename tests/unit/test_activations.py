"""What the formulas say a forward pass keeps, against what autograd saves: storages counted once, weights left out."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM

from configs.activations import Arithmetic, cast_weights, logit_bytes, saved_per_token
from configs.model_shapes import complete_values
from tests.unit.test_model_shapes import PRESETS
from train import adapters, attention

TOKENS = 64
ARITHMETICS = {
    "fp32": (torch.float32, None, Arithmetic(4, 4)),
    "bf16": (torch.bfloat16, None, Arithmetic(2, 2)),
    "autocast": (torch.float32, torch.bfloat16, Arithmetic(4, 2)),
}
# Layers of sizes far apart, so that no term hides behind another; dense and routed layers.
GROUPED = {**PRESETS["tiny_llama"], "intermediate_size": 640, "head_dim": 48, "num_hidden_layers": 3}
LATENT = {**PRESETS["tiny_deepseek_v3"], "moe_intermediate_size": 96, "n_shared_experts": 2, "num_experts_per_tok": 4}
MODELS = {
    "llama": GROUPED,
    "qwen2": {**GROUPED, "model_type": "qwen2"},
    "qwen3": {**GROUPED, "model_type": "qwen3"},
    "deepseek_v3": {**LATENT, "topk_group": 2},
}


def build(values: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    attention.register()
    values = dict(values)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention.VARLEN_CPU)
    network: nn.Module = model.train()
    return network


def saved_bytes(model: nn.Module, autocast: torch.dtype | None) -> int:
    """Returns the bytes that autograd keeps of one row of TOKENS, besides the model's own tensors."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    with (
        saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None),
    ):
        base.get_decoder()(
            input_ids=torch.arange(TOKENS)[None],
            position_ids=torch.arange(TOKENS)[None],
            cu_seq_lens_q=torch.tensor([0, TOKENS]),
            use_cache=False,
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_the_decoder_keeps_what_the_formula_says(name: str, arithmetic: str) -> None:
    dtype, autocast, numbers = ARITHMETICS[arithmetic]
    values = complete_values(MODELS[name])
    assert values is not None
    found = saved_bytes(build(MODELS[name], dtype), autocast)
    expected = TOKENS * saved_per_token(values, numbers, "none")
    if autocast is not None:
        # The head's cast copy is made outside the decoder.
        expected += cast_weights(values) - 2 * values["vocab_size"] * values["hidden_size"]
    assert expected == pytest.approx(found, rel=0.03)


def test_recomputing_layers_keeps_their_inputs() -> None:
    model = build(GROUPED, torch.float32)
    values = complete_values(GROUPED)
    assert values is not None
    adapters.recompute_activations(model, "full")
    one_layer = saved_per_token({**values, "num_hidden_layers": 1}, Arithmetic(4, 4), "none")
    last_norm = 2 * 4 * values["hidden_size"]
    # One layer lives while it is computed again, which is after the forward pass.
    expected = saved_per_token(values, Arithmetic(4, 4), "full") - (one_layer - last_norm)
    assert TOKENS * expected == pytest.approx(saved_bytes(model, None), rel=0.05)


def test_an_adapter_keeps_no_more() -> None:
    from configs.schema import AdapterSection

    values = complete_values(GROUPED)
    assert values is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = adapters.attach(build(GROUPED, torch.float32), AdapterSection(name="lora", rank=2), 1)
    expected = TOKENS * saved_per_token(values, Arithmetic(4, 4, trains_norms=False), "none")
    assert expected == pytest.approx(saved_bytes(adapted, None), rel=0.05)


def test_recomputing_saves_in_order() -> None:
    values = complete_values(PRESETS["qwen3_8b"])
    assert values is not None
    none, selective, full = (saved_per_token(values, Arithmetic(2, 2), what) for what in ("none", "selective", "full"))
    assert full < selective < none
    assert full < 0.1 * none


def test_logits_of_one_chunk_only() -> None:
    numbers = Arithmetic(2, 2)
    short, long = (logit_bytes(tokens, 128_000, 4096, numbers, 2**28) for tokens in (100, 100_000))
    assert short == 3 * 4 * 128_000 * 100 + 100 * 4096 * 2
    assert long == pytest.approx(3 * 2**28 + 100_000 * 4096 * 2, rel=1e-3)
