"""Low-rank adapters by peft, drawn so that every engine and rank count starts from the same numbers."""

from __future__ import annotations

import functools
import hashlib
import warnings
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from configs.errors import ConfigError
from configs.schema import AdapterSection
from train.optimizer import whole_shape


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
        if "lora_dropout" in str(error):
            raise ConfigError(
                f"adapter.dropout={adapter.dropout}: peft has no dropout for experts that are held as one tensor; expected 0, "
                "or adapter.target_modules without them"
            ) from error
        linear = sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ConfigError(
            f"adapter.target_modules={list(adapter.target_modules)}: no adapter could be attached; "
            f"linear layers of this model: {', '.join(linear)}"
        ) from error
    _draw(adapted, seed)
    network: nn.Module = adapted.train()
    return network


def _draw(model: nn.Module, seed: int) -> None:
    """Gives every weight of the adapter its initial value; an empty model gets them later, part by part."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in _DRAWN):
            with torch.no_grad():
                parameter.copy_(initial_value(name, tuple(parameter.shape), seed))


_DRAWN = (".lora_A.", ".lora_embedding_B.")


def initial_value(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Returns the fp32 initial value of the adapter's weight `name`, whole, before any sharding.

    Each `lora_A` comes from its own generator, seeded by hash(seed, name), so that every engine and rank count starts
    equal. The distribution is peft's: Kaiming uniform with a = sqrt(5), that is U(-1, 1) / sqrt(fan_in); `lora_B` is zero.
    """
    if not any(part in name for part in _DRAWN):
        return torch.zeros(shape)
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    bound = shape[1] ** -0.5
    return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)


def recompute_activations(model: nn.Module, what: str) -> None:
    """Makes the backward pass recompute activations; works with frozen embeddings under an adapter too.

    Args:
        model: a transformers model, or a peft model around one.
        what: `none`; `full`: each layer again; `selective`: all but matrix products and attention, whose results are kept.
    """
    if what == "none":
        return
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    options: dict[str, Any] = {"use_reentrant": False}
    if what == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _keep_costly)
    base.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    base.enable_input_require_grads()


# What costs most to compute again for the bytes that it keeps.
_COSTLY = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def _keep_costly(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in _COSTLY else CheckpointPolicy.PREFER_RECOMPUTE


def trained_parameters(model: nn.Module) -> tuple[int, int]:
    """Returns (trained, all) numbers of parameters."""
    sizes = [(prod(whole_shape(parameter)), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, is_trained in sizes if is_trained), sum(size for size, _ in sizes)
