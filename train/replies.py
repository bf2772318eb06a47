"""Answers to held-out prompts at each evaluation, for a person to compare. Written to a private file, never logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_pipelines.prompts import HeldOut
from train.activity import sign


def answer(
    model: nn.Module, prompt: list[int], *, device: torch.device, max_new_tokens: int, stop_ids: list[int], pad_id: int
) -> list[int]:
    """Returns the greedy continuation of `prompt` (token ids), without the prompt."""
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
    path: Path | None,
    model: nn.Module,
    tokenizer: Any,
    prompts: list[HeldOut],
    *,
    step: int,
    device: torch.device,
    max_new_tokens: int,
    stop_ids: list[int],
) -> None:
    """Appends one JSON line per prompt to `path` (created 0600): step, prompt, reply and the corpus's own answer.

    Without a path the answers are computed and dropped: other ranks need this one's share of the model.
    """
    was_training = model.training
    model.eval()
    try:
        lines = []
        for prompt in prompts:
            sign()
            reply = answer(
                model,
                prompt.prompt,
                device=device,
                max_new_tokens=max_new_tokens,
                stop_ids=stop_ids,
                pad_id=tokenizer.pad_token_id or 0,
            )
            line = {
                "step": step,
                "document": prompt.document,
                "prompt": tokenizer.decode(prompt.prompt),
                "reply": tokenizer.decode(reply, skip_special_tokens=True),
                "answer": tokenizer.decode(prompt.answer, skip_special_tokens=True),
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    finally:
        model.train(was_training)
    if path is not None:
        path.touch(mode=0o600)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
