"""Bytes that a forward pass keeps for the backward pass, per token, from the values of a config.json.

Counted operation by operation as arXiv 2205.05198 does, for what this project runs: attention without a score matrix
(SDPA, varlen: the kernel keeps queries, keys, values, output and one number per head), fused experts of transformers 5,
log-probabilities in chunks. A test compares with what autograd saves. Three arithmetics differ:

- plain: weights and activations have one type (fp32; or bf16 under ZeRO and FSDP2).
- autocast over fp32 weights (ddp with bf16 or fp16): the residual stream and norms stay fp32, every matrix product
  casts its input for itself, and the cast weights live until the backward pass has used them.

Not in the count: numbers per token that are no multiple of a width (positions, router choices), the adapter's `[rank]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.model_shapes import numel, parameters_of

Values = Mapping[str, Any]

FP32 = 4


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Bytes of a number on the residual stream and in a matrix product; whether norms have weights in training."""

    residual: int
    compute: int
    trains_norms: bool = True

    @property
    def is_autocast(self) -> bool:
        return self.residual != self.compute


def saved_per_token(values: Values, arithmetic: Arithmetic, recompute: str) -> int:
    """Returns the bytes per token that the decoder keeps; `values` complete, see `model_shapes.complete_values`.

    Args:
        values: of config.json.
        arithmetic: types of numbers.
        recompute: `none`; `full`: only each layer's input, and everything of one layer while it is computed again;
            `selective`: also the results of matrix products and attention.
    """
    layers = [layer_per_token(values, arithmetic, layer) for layer in range(values["num_hidden_layers"])]
    last_norm = _norm(values["hidden_size"], arithmetic, arithmetic.residual, uses=0)
    if recompute == "none":
        return sum(layers) + last_norm
    kept = values["hidden_size"] * arithmetic.residual * len(layers)
    if recompute == "selective":
        kept += sum(_products(values, layer) for layer in range(len(layers))) * arithmetic.compute
    return int(kept) + max(layers) + last_norm


def layer_per_token(values: Values, arithmetic: Arithmetic, layer: int) -> int:
    """Returns the bytes per token that one decoder layer keeps when nothing is computed again."""
    hidden = values["hidden_size"]
    latent = values["model_type"] == "deepseek_v3"
    attention = _latent_attention(values, arithmetic) if latent else _grouped_attention(values, arithmetic)
    before_attention = _norm(hidden, arithmetic, arithmetic.residual, uses=2 if latent else 3)
    return before_attention + attention + _feed_forward(values, arithmetic, layer)


def _norm(size: int, arithmetic: Arithmetic, type_bytes: int, uses: int) -> int:
    """RMSNorm keeps its input in fp32 (the input itself, or a copy) and what it multiplies its weight with.

    Its result is kept by the products that use it: once, or, cast, once for each.
    """
    kept = FP32 * size + (type_bytes * size if arithmetic.trains_norms else 0)
    copies = uses if type_bytes != arithmetic.compute else min(uses, 1)
    return kept + copies * arithmetic.compute * size


def _grouped_attention(values: Values, arithmetic: Arithmetic) -> int:
    """Queries, keys, values (repeated for every query head), the kernel's output and its copy laid out for o_proj."""
    heads, size = values["num_attention_heads"], values["head_dim"]
    queries, keys = heads * size, values["num_key_value_heads"] * size
    kept = 5 * queries * arithmetic.compute + FP32 * heads
    if values["model_type"] == "qwen3":
        kept += _norm(queries, arithmetic, arithmetic.compute, uses=0)
        kept += _norm(keys, arithmetic, arithmetic.compute, uses=0)
    return int(kept)


def _latent_attention(values: Values, arithmetic: Arithmetic) -> int:
    """Multi-head latent attention: normalised low-rank queries and keys-values, then attention per head."""
    heads, rope, nope, value = (
        values["num_attention_heads"],
        values["qk_rope_head_dim"],
        values["qk_nope_head_dim"],
        values["v_head_dim"],
    )
    low_rank = _norm(values["kv_lora_rank"], arithmetic, arithmetic.compute, uses=1)
    if values["q_lora_rank"] is not None:
        low_rank += _norm(values["q_lora_rank"], arithmetic, arithmetic.compute, uses=1)
    # Queries and keys of nope + rope, values inside kv_b_proj's result, output and its copy.
    per_head = 2 * (nope + rope) + (nope + value) + 2 * value
    return low_rank + int(heads * (per_head * arithmetic.compute + FP32))


def _feed_forward(values: Values, arithmetic: Arithmetic, layer: int) -> int:
    """A gated block keeps gate, activated gate, up and their product; routed experts the same for each token's choice."""
    hidden, compute = values["hidden_size"], arithmetic.compute
    if not _has_experts(values, layer):
        before = _norm(hidden, arithmetic, arithmetic.residual, uses=2)
        return before + 4 * int(values["intermediate_size"]) * compute
    size, chosen = values["moe_intermediate_size"], values["num_experts_per_tok"]
    # The router computes in fp32: a copy of its input, but in autocast, which casts it as any other.
    before = _norm(hidden, arithmetic, arithmetic.residual, uses=3)
    before += FP32 * hidden if arithmetic.residual < FP32 else 0
    # Autocast does not know grouped matrix products: experts compute in the residual stream's type.
    routed = chosen * (2 * hidden + 4 * size) * arithmetic.residual
    shared = 4 * size * values["n_shared_experts"] * compute
    return before + int(routed + shared)


def _products(values: Values, layer: int) -> int:
    """Returns the numbers per token that the matrix products and the attention of a layer give out."""
    hidden = values["hidden_size"]
    if values["model_type"] == "deepseek_v3":
        heads, value = values["num_attention_heads"], values["v_head_dim"]
        queries = heads * (values["qk_nope_head_dim"] + values["qk_rope_head_dim"])
        attention = (values["q_lora_rank"] or 0) + queries + values["kv_lora_rank"] + values["qk_rope_head_dim"]
        attention += heads * (values["qk_nope_head_dim"] + 2 * value)
    else:
        size = values["head_dim"]
        attention = 2 * values["num_attention_heads"] * size + 2 * values["num_key_value_heads"] * size
    if not _has_experts(values, layer):
        return int(attention + 2 * hidden + 2 * values["intermediate_size"])
    shared = values["moe_intermediate_size"] * values["n_shared_experts"]
    return int(attention + 2 * hidden + 2 * shared + values["n_routed_experts"])


def _has_experts(values: Values, layer: int) -> bool:
    return values["model_type"] == "deepseek_v3" and layer >= int(values["first_k_dense_replace"])


def cast_weights(values: Values, *, is_reward: bool = False) -> int:
    """Returns the bytes of the half-precision copies that autocast makes of fp32 weights: those of matrix products.

    It keeps each copy until the forward pass ends, and autograd until the backward pass has used it. Embeddings, norms
    and fused experts are not cast; a head tied to the embedding is.
    """
    parameters = parameters_of(values, is_reward=is_reward)
    assert parameters is not None
    cast = [p for p in parameters if p.kind != "other" or p.name.endswith(".gate.weight")]
    tied = parameters[0].numel if values["tie_word_embeddings"] and not is_reward else 0
    return 2 * (numel(cast) + tied)


def logit_bytes(tokens: int, vocab_size: int, hidden_size: int, arithmetic: Arithmetic, chunk_bytes: int) -> int:
    """Returns the bytes of the output head over `tokens` labelled positions, at the peak of one chunk's backward pass.

    Three fp32 matrices of the chunk live at once there (log-probabilities, the gradient of each, the gradient of
    logits), besides the hidden states picked from the labelled positions.
    """
    rows = min(tokens, max(1, chunk_bytes // (FP32 * vocab_size)))
    return 3 * FP32 * vocab_size * rows + tokens * hidden_size * arithmetic.residual


def reward_bytes(tokens: int, hidden_size: int, arithmetic: Arithmetic) -> int:
    """Returns the bytes of a reward model's head over `tokens` labelled positions: hidden states, rewards, their gradients."""
    return tokens * (hidden_size * arithmetic.residual + 2 * FP32)
