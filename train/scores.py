"""The model as the objective sees it: log-probabilities of the targets, nothing else.

Only labelled positions go through the output head, in chunks, so no `[tokens, vocabulary]` tensor exists: peak memory
is one chunk of logits. When there is more than one chunk, the backward pass computes each again.
"""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from configs.errors import ConfigError
from data_pipelines.collate import Batch
from train.attention import model_inputs
from train.router import Router

DEFAULT_CHUNK_BYTES = 256 * 2**20

# Families that change logits after the head; a plain head would silently train on other numbers.
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class Scores(nn.Module):
    """Wraps a causal language model; prepared as one module by the engine.

    Args:
        model: a transformers causal LM, or a peft model around one.
        precision: of the arithmetic: `bf16` and `fp16` are autocast over the weights' own type.
        chunk_bytes: most bytes of fp32 logits at a time.
        router: watches the experts of `model` in training; None when it has none.

    Raises:
        ConfigError: the model transforms its logits in a way that this head does not.
    """

    def __init__(
        self, model: nn.Module, *, precision: str, chunk_bytes: int = DEFAULT_CHUNK_BYTES, router: Router | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self._chunk_bytes = chunk_bytes
        self._router = router
        self._autocast = _AUTOCAST.get(precision)
        config = base_model(model).config
        for name in _LOGIT_TRANSFORMS:
            if getattr(config, name, None) not in (None, 1, 1.0):
                raise ConfigError(f"model: {config.model_type} changes its logits by {name}, which is not supported")
        self._attention: str = config._attn_implementation

    def forward(self, batch: Batch, *, plainly: bool = False) -> Tensor:
        """Returns log p(target | its document so far), `[N]` fp32, in the order of `batch.targets`.

        Args:
            batch: one micro-batch.
            plainly: by the reference's way; slow, for comparisons.
        """
        if plainly:
            return self._reference(batch)
        base = base_model(self.model)
        with self._autocast_context(batch):
            with self._watch(batch):
                hidden = base.get_decoder()(**model_inputs(batch, self._attention)).last_hidden_state
            hidden = hidden.reshape(-1, hidden.shape[-1])[batch.target_index]
            head = base.get_output_embeddings()
            rows = max(1, self._chunk_bytes // (4 * base.config.vocab_size))
            if len(hidden) <= rows:
                return _log_probabilities(head, hidden, batch.targets)
            parts = [
                checkpoint(_log_probabilities, head, h, t, use_reentrant=False)
                for h, t in zip(*(part.split(rows) for part in (hidden, batch.targets)), strict=True)
            ]
        return torch.cat(parts)

    def _reference(self, batch: Batch) -> Tensor:
        """Returns the same `[N]` numbers the plain way: every document alone, all logits, no boundaries passed."""
        ids, labels = batch.input_ids.reshape(-1), batch.labels.reshape(-1)
        parts = []
        bounds = batch.cu_seqlens.tolist()
        for begin, end in pairwise(bounds):
            wanted = labels[begin + 1 : end] != -100
            if not wanted.any():
                continue
            with self._autocast_context(batch):
                logits = self.model(input_ids=ids[None, begin:end], use_cache=False).logits[0, :-1]
            parts.append(logits.float().log_softmax(-1).gather(1, ids[begin + 1 : end, None])[wanted, 0])
        return torch.cat(parts)

    def _watch(self, batch: Batch) -> Any:
        is_training = self.training and torch.is_grad_enabled()
        return self._router.collect(batch) if self._router and is_training else contextlib.nullcontext()

    def _autocast_context(self, batch: Batch) -> Any:
        return torch.autocast(batch.input_ids.device.type, self._autocast, enabled=self._autocast is not None)


def base_model(model: nn.Module) -> Any:
    """Returns the transformers model inside a peft wrapper, or `model` itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def _log_probabilities(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(head(hidden).float(), targets, reduction="none")
