"""Parameters of which this rank holds a contiguous range, with torch's own optimizer: what ddp and fsdp2 share."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from math import prod

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from configs.errors import CheckpointError
from train.engines import StepResult
from train.guards import non_finite_gradients
from train.loss_scale import LossScale
from train.shards import LocalShard, TensorReader, flat_shards

_LONG = 2**16


def local_part(tensor: Tensor) -> tuple[Tensor, int]:
    """Returns this rank's part of a tensor, flat, and where it begins in the whole flattened tensor.

    A DTensor is split along dimension 0 as `torch.chunk` splits it, over one dimension of its mesh at most.
    """
    if not isinstance(tensor, DTensor):
        return tensor.reshape(-1), 0
    local = tensor.to_local().reshape(-1)
    start = 0
    for mesh_dim, placement in enumerate(tensor.placements):
        if isinstance(placement, Shard):
            rows = -(-tensor.shape[0] // tensor.device_mesh.size(mesh_dim))
            first = min(rows * tensor.device_mesh.get_local_rank(mesh_dim), tensor.shape[0])
            start = first * prod(tensor.shape[1:])
    return local, start


def shards_of(tensor: Tensor) -> list[LocalShard]:
    """Returns this rank's part of a tensor as blocks of the whole."""
    local, start = local_part(tensor.detach())
    return flat_shards(local, tuple(tensor.shape), start)


def fill_part(tensor: Tensor, reader: TensorReader, name: str) -> None:
    """Overwrites this rank's part of a tensor from `reader`.

    Raises:
        CheckpointError: there is no such tensor, or it has another shape.
    """
    check_tensor(reader, reader.names(), name, tuple(tensor.shape))
    local, start = local_part(tensor.detach())
    with torch.no_grad():
        local.copy_(reader.read_flat(name, start, start + local.numel()))


def check_tensor(reader: TensorReader, names: Collection[str], name: str, shape: tuple[int, ...]) -> None:
    """Raises CheckpointError when `reader` has no tensor `name` of this shape."""
    if name not in names:
        raise CheckpointError(f"checkpoint has no tensor {name}, which this run trains")
    if reader.shape(name) != shape:
        raise CheckpointError(f"checkpoint tensor {name} has shape {reader.shape(name)}, expected {shape}")


def optimizer_keys(reader: TensorReader) -> dict[str, list[str]]:
    """Returns the keys of optimizer state that `reader` has, by parameter."""
    keys: dict[str, list[str]] = {}
    for name in reader.names():
        if name.startswith("optimizer."):
            parameter, key = name.removeprefix("optimizer.").rsplit(".", 1)
            keys.setdefault(parameter, []).append(key)
    return keys


def torch_state(named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, list[LocalShard]]:
    """Returns weights and optimizer state of the parameters that are trained."""
    shards = {f"model.{name}": shards_of(parameter) for name, parameter in named.items()}
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            shards[f"optimizer.{name}.{key}"] = shards_of(torch.as_tensor(value))
    return shards


def load_torch_state(
    named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, reader: TensorReader
) -> None:
    """Overwrites weights and optimizer state in place; state that the reader has not is left out.

    Raises:
        CheckpointError: a weight is missing, or a tensor has another shape.
    """
    keys = optimizer_keys(reader)
    for name, parameter in named.items():
        fill_part(parameter, reader, f"model.{name}")
        state: dict[str, Tensor] = {}
        for key in keys.get(name, []):
            full = f"optimizer.{name}.{key}"
            # AdamW counts steps in a float32 scalar, which its fused kernel wants beside the weights.
            is_scalar = not reader.shape(full) and parameter.dim() > 0
            value = torch.zeros((), device=parameter.device) if is_scalar else torch.zeros_like(parameter.detach())
            fill_part(value, reader, full)
            state[key] = value
        optimizer.state[parameter] = state


def clipped_step(
    named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, max_grad_norm: float, scale: LossScale
) -> StepResult:
    """Clips the (scaled) gradients to `max_grad_norm` (0: not at all), updates, clears gradients."""
    parameters = list(named.values())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = global_norm(gradients)
    norm = float(total) / scale.value
    applied = math.isfinite(norm)
    if applied:
        _rescale(parameters, gradients, norm, max_grad_norm, total, scale.value)
        optimizer.step()
        scale.accepted()
    overflowed = not applied and scale.overflowed()
    bad = () if applied or overflowed else non_finite_gradients(named.items())
    optimizer.zero_grad(set_to_none=True)
    return StepResult(norm, applied, overflowed, bad)


def global_norm(gradients: list[Tensor]) -> Tensor:
    """Returns the norm of all gradients together, over all shards.

    On a CPU torch adds up the squares of a tensor one after the other in fp32: 4e-3 off for 50 million elements. Row by
    row, then over rows, it is right to 1e-6. (A GPU adds in a tree.)
    """
    rows = [
        torch.linalg.vector_norm(g, dim=-1) if g.device.type == "cpu" and g.numel() > _LONG else g for g in gradients
    ]
    total = nn.utils.get_total_norm(rows)
    return total.full_tensor() if isinstance(total, DTensor) else total


def _rescale(
    parameters: list[nn.Parameter],
    gradients: list[Tensor],
    norm: float,
    max_grad_norm: float,
    total: Tensor,
    scale: float,
) -> None:
    if scale != 1.0:
        for gradient in gradients:
            gradient.div_(scale)
        total = total / scale
    # Far below the limit torch would multiply every gradient by exactly 1; its rounding decides near the limit.
    if max_grad_norm and norm > 0.99 * max_grad_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, total)


def quiet_update(optimizer: torch.optim.Optimizer) -> None:
    """Makes one update at learning rate 0 on gradients of 0, then forgets the state that it made."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.state.clear()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the parameters that are trained, by name."""
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)
