"""Attention inside documents only. `varlen` never builds a `[T, T]` mask.

transformers passes extra keyword arguments of a model's call down to its attention function; the boundaries of a
packed row travel as `cu_seq_lens_q`, the name that its FlashAttention path uses too.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_pipelines.collate import Batch

VARLEN_CPU = "aisc_varlen"
FLASH = "flash_attention_2"


def choose(section: str, device: torch.device) -> tuple[str, str]:
    """Returns (name for transformers, reason) for `model.attention`.

    `auto` and `varlen` take the variable-length kernel of the device: FlashAttention where it is installed on a GPU, a
    loop over documents on a CPU. Without FlashAttention a GPU falls back to sdpa with a mask, which is as exact.
    """
    if section in ("sdpa", "eager"):
        return section, f"{section}: asked for"
    if device.type == "cpu":
        return VARLEN_CPU, "varlen: each document alone through sdpa"
    if importlib.util.find_spec("flash_attn"):
        return FLASH, "varlen: FlashAttention"
    return "sdpa", "sdpa with a document mask: flash_attn is not installed (slower and more memory on long rows)"


def model_inputs(batch: Batch, attention: str) -> dict[str, Any]:
    """Returns the keyword arguments that keep documents apart under `attention`.

    Variable-length kernels take the whole micro-batch as one sequence `[1, B * T]`. The others take `[B, T]` and build
    their mask from `position_ids`, which transformers does only without a cache and without an attention mask.
    """
    if attention not in (VARLEN_CPU, FLASH):
        return {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
    return {
        "input_ids": batch.input_ids.reshape(1, -1),
        "position_ids": batch.position_ids.reshape(1, -1),
        "use_cache": False,
        "cu_seq_lens_q": batch.cu_seqlens,
        "cu_seq_lens_k": batch.cu_seqlens,
        "max_length_q": batch.max_seqlen,
        "max_length_k": batch.max_seqlen,
    }


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each document alone.

    Args:
        query: `[1, heads, S, head_dim]`; `key` and `value` may have fewer heads, `value` another head size.
        cu_seq_lens_q: `[D + 1]` boundaries in S; without them (generation) it is plain causal attention.

    Returns:
        `[1, S, heads, value_dim]`, and no weights.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if cu_seq_lens_q is None:
        causal = query.shape[2] > 1 and attention_mask is None
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling, is_causal=causal
        )
        return out.transpose(1, 2).contiguous(), None
    sizes = torch.diff(cu_seq_lens_q).tolist()
    documents = zip(*(part.split(sizes, 2) for part in (query, key, value)), strict=True)  # type: ignore[no-untyped-call]
    parts = [
        F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True) for q, k, v in documents
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


def register() -> None:
    """Makes `VARLEN_CPU` known to transformers; safe to call again."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(VARLEN_CPU, varlen_attention)
    AttentionMaskInterface.register(VARLEN_CPU, _no_mask)
