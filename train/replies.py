"""Answers to held-out prompts at each evaluation, for a person to compare. Written to a private file, never logged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data_pipelines.index import Store


@dataclass(frozen=True, slots=True)
class Prompt:
    """A held-out conversation up to its last assistant turn, and the answer that was given there."""

    document: int
    input_ids: list[int]
    answer_ids: list[int]


def held_out_prompts(store: Store, most: int) -> list[Prompt]:
    """Returns up to `most` prompts spread over the held-out documents: what comes before their last learned run."""
    prompts = []
    for document in np.unique(np.linspace(0, store.num_documents - 1, num=min(most, store.num_documents)).astype(int)):
        ids, mask = store.document(int(document))
        learned = np.flatnonzero(mask)
        if not len(learned):
            continue
        end = int(learned[-1]) + 1
        gaps = np.flatnonzero(np.diff(learned) > 1)
        start = int(learned[gaps[-1] + 1] if len(gaps) else learned[0])
        prompts.append(Prompt(int(document), ids[:start].tolist(), ids[start:end].tolist()))
    return prompts


def answer(model: nn.Module, prompt: list[int], *, max_new_tokens: int, stop_ids: list[int], pad_id: int) -> list[int]:
    """Returns the greedy continuation of `prompt` (token ids), without the prompt."""
    device = next(model.parameters()).device
    ids = torch.tensor([prompt], device=device)
    with torch.no_grad():
        out = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=stop_ids or None,
            pad_token_id=pad_id,
        )
    return [int(token) for token in out[0, len(prompt) :]]


def write_replies(
    path: Path,
    model: nn.Module,
    tokenizer: Any,
    prompts: list[Prompt],
    *,
    step: int,
    max_new_tokens: int,
    stop_ids: list[int],
) -> None:
    """Appends one JSON line per prompt to `path` (created 0600): step, prompt, reply and the corpus's own answer."""
    was_training = model.training
    model.eval()
    path.touch(mode=0o600)
    try:
        with path.open("a", encoding="utf-8") as file:
            for prompt in prompts:
                reply = answer(
                    model,
                    prompt.input_ids,
                    max_new_tokens=max_new_tokens,
                    stop_ids=stop_ids,
                    pad_id=tokenizer.pad_token_id or 0,
                )
                line = {
                    "step": step,
                    "document": prompt.document,
                    "prompt": tokenizer.decode(prompt.input_ids),
                    "reply": tokenizer.decode(reply, skip_special_tokens=True),
                    "answer": tokenizer.decode(prompt.answer_ids, skip_special_tokens=True),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    finally:
        model.train(was_training)
