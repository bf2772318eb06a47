"""`model`: which weights, in what precision, with which attention kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from configs.schema.fields import setting


@dataclass(kw_only=True, slots=True)
class ModelSection:
    path: str | None = setting(
        None,
        identity=True,
        help="Hugging Face model folder (config.json, *.safetensors, tokenizer), an earlier run's folder, or null with `arch`.",
    )
    tokenizer: str | None = setting(
        None, identity=True, help="Folder of the tokenizer; null: the one in `model.path`."
    )
    arch: dict[str, Any] = setting(
        factory=dict,
        identity=True,
        help="Values of config.json for a model with random weights (tests, scaling studies); used when `model.path` is null.",
    )
    random_weights: bool = setting(
        False, identity=True, help="Start from random weights of shape `arch`; without it a missing `model.path` is an error."
    )
    dtype: str = setting(
        "auto",
        identity=True,
        choices=("auto", "float32", "bfloat16"),
        help="Type of the weights in memory; auto: float32 when they are trained, bfloat16 when frozen on a GPU.",
    )
    attention: str = setting(
        "auto",
        identity=False,
        choices=("auto", "varlen", "sdpa", "eager"),
        help="Attention kernel; auto: varlen (documents of a packed row attend only to themselves, no dense mask) where it runs, else sdpa.",
    )
    router_balance: float = setting(
        0.0,
        identity=True,
        help="Weight of the experts' balance loss of each document (arXiv 2412.19437, there 1e-4); 0: none.",
    )

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        if self.router_balance >= 0:
            return []
        return [f"model.router_balance={self.router_balance}: expected 0 or more"]
