"""Low-rank adapters by peft, drawn so that every engine and rank count starts from the same numbers."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import torch
from torch import nn

from configs.errors import ConfigError
from configs.schema import AdapterSection


def attach(model: nn.Module, adapter: AdapterSection, seed: int) -> nn.Module:
    """Returns `model` with its weights frozen and an adapter in training; `model` itself when the adapter is none.

    Raises:
        ConfigError: no layer of the model has one of the names in `target_modules`.
    """
    if adapter.name == "none":
        return model
    from peft import LoraConfig, get_peft_model

    targets: list[str] | str = "all-linear" if adapter.target_modules == ["all-linear"] else list(adapter.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        modules_to_save=list(adapter.modules_to_save) or None,
        use_dora=adapter.dora,
        use_rslora=adapter.rslora,
        bias="none",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(model, config)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ConfigError(
            f"adapter.target_modules={list(adapter.target_modules)}: no adapter could be attached; "
            f"linear layers of this model: {', '.join(linear)}"
        ) from error
    _draw(adapted, seed)
    network: nn.Module = adapted.train()
    return network


def _draw(model: nn.Module, seed: int) -> None:
    """Draws each `lora_A` from its own generator, seeded by hash(seed, name), on the full shape before any sharding.

    The distribution is peft's: Kaiming uniform with a = sqrt(5), that is U(-1, 1) / sqrt(fan_in); `lora_B` stays zero.
    """
    for name, parameter in model.named_parameters():
        if ".lora_A." not in name and ".lora_embedding_B." not in name:
            continue
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        bound = parameter.shape[1] ** -0.5
        drawn = torch.empty(parameter.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            parameter.copy_(drawn)


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Recomputes each layer in the backward pass; works with frozen embeddings under an adapter too."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    base.enable_input_require_grads()


def trained_parameters(model: nn.Module) -> tuple[int, int]:
    """Returns (trained, all) numbers of parameters."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in model.parameters())
