"""A model's shape made small: same architecture, attention kind, experts, tied embeddings and vocabulary. No torch here."""

from __future__ import annotations

from typing import Any

LAYERS = 2
HIDDEN = 64
HEADS = 4
# Largest values of what is left of a size; a smaller one stays as it is.
_MOST = {
    "hidden_size": HIDDEN,
    "n_embd": HIDDEN,
    "intermediate_size": 128,
    "n_inner": 128,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 48,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "qk_head_dim": 24,
    "n_routed_experts": 8,
    "num_experts": 8,
    "num_local_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_NUM_HEADS = ("num_attention_heads", "n_head")
_NUM_LAYERS = ("num_hidden_layers", "n_layer")
_NUM_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts")


def is_mixture(values: dict[str, Any]) -> bool:
    """True when the model routes tokens to experts."""
    return any((values.get(key) or 0) > 1 for key in _NUM_EXPERTS)


def reduced_shape(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a config.json with a few layers of small matrices, for random weights.

    Kept: kind of model, vocabulary, positions, activation, biases, tied embeddings, groups of query heads that share keys
    (grouped, multi-query or one to one), latent attention, dense layers before those with experts. Weights are drawn so
    wide (1 / sqrt(hidden)) that attention and experts matter for the loss from the first step on.
    """
    small = {key: value for key, value in values.items() if key not in ("quantization_config", "torch_dtype", "dtype")}
    for key, most in _MOST.items():
        if isinstance(small.get(key), int):
            small[key] = min(small[key], most)
    for key in _NUM_LAYERS:
        if isinstance(small.get(key), int):
            small[key] = min(small[key], LAYERS + small.get("first_k_dense_replace", 0))
    _reduce_heads(small, values)
    _cut_layer_lists(small)
    _plain_positions(small)
    small["initializer_range"] = HIDDEN**-0.5
    return small


def _reduce_heads(small: dict[str, Any], values: dict[str, Any]) -> None:
    """Four heads; as many of them share keys as before, at most all."""
    for key in _NUM_HEADS:
        heads = values.get(key)
        if not isinstance(heads, int):
            continue
        small[key] = HEADS
        shared = heads // values.get("num_key_value_heads", heads)
        if "num_key_value_heads" in values:
            one_of = HEADS if shared == heads else min(2, shared)
            small["num_key_value_heads"] = max(1, HEADS // one_of) if shared > 1 else HEADS
        if isinstance(values.get("head_dim"), int):
            small["head_dim"] = min(values["head_dim"], HIDDEN // HEADS)


def _cut_layer_lists(small: dict[str, Any]) -> None:
    """Lists with one entry per layer keep their first ones."""
    layers = next((small[key] for key in _NUM_LAYERS if isinstance(small.get(key), int)), LAYERS)
    for key in ("layer_types", "mlp_layer_types"):
        if isinstance(small.get(key), list):
            small[key] = small[key][:layers]


def _plain_positions(small: dict[str, Any]) -> None:
    """Drops scalings of rotary positions that name one factor per dimension of a head, which has other dimensions now."""
    for key in ("rope_scaling", "rope_parameters"):
        scaling = small.get(key)
        if isinstance(scaling, dict) and any(isinstance(value, list) for value in scaling.values()):
            kept = {name: value for name, value in scaling.items() if not isinstance(value, list)}
            small[key] = {**kept, "rope_type": "default"} if key == "rope_parameters" else None
