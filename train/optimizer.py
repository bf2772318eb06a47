"""Optimizers from their section. Decay acts on matrices only, never on norms and biases."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from configs.schema import OptimizerSection


def build_optimizer(
    section: OptimizerSection, named_parameters: Iterable[tuple[str, nn.Parameter]], lr: float
) -> torch.optim.Optimizer:
    """Returns the optimizer over the parameters that require gradients, in two groups: decayed (2 or more dims) or not.

    AdamW takes torch's fused kernel, one launch for all tensors instead of several per tensor.
    """
    trained = [parameter for _, parameter in named_parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if len(whole_shape(p)) >= 2], "weight_decay": section.weight_decay},
        {"params": [p for p in trained if len(whole_shape(p)) < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if section.name == "sgd":
        return torch.optim.SGD(groups, lr=lr)
    return torch.optim.AdamW(groups, lr=lr, betas=(section.beta1, section.beta2), eps=section.eps, fused=True)


def whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Returns the shape of the whole parameter, where ZeRO-3 leaves an empty one in its place."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
