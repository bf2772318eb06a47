"""A model's weights as the safetensors files of a Hugging Face folder, one tensor in memory at a time.

Weights come from a checkpoint by name, whatever engine wrote it; what a checkpoint does not hold (buffers) from the model
in memory. Names and shapes are those of the original format: transformers keeps the experts of a layer as one tensor and
its own table says how to take it apart again. Files are those that `save_pretrained` would write, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from configs.errors import ConfigError
from train.activity import sign
from train.checkpoint import DTYPE_NAMES, to_array
from train.optimizer import whole_shape
from train.shard_files import TensorsToCome
from train.shards import TensorReader

FILE_BYTES = 5 * 10**9


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """What will be written, known from the model's shapes alone.

    Attributes:
        sources: the tensors of the model, in the order in which they are read; several names of one tensor count once.
        files: file name to its tensors' names, each with safetensors type and shape.
        num_parameters: of the model.
    """

    sources: list[str]
    files: dict[str, dict[str, tuple[str, tuple[int, ...]]]]
    num_parameters: int

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(_size(dtype, shape) for tensors in self.files.values() for dtype, shape in tensors.values())


def plan_weights(model: Any, dtype: torch.dtype, *, file_bytes: int = FILE_BYTES) -> WeightPlan:
    """Returns how `model` will be written; before the first step this shows that it can be.

    Args:
        model: a transformers model; its weights may be sharded or empty.
        dtype: of the weights written.
        file_bytes: largest size of a file; a larger tensor has one of its own.

    Raises:
        ConfigError: the original form of a weight needs several tensors at once.
    """
    parameters = {name: whole_shape(parameter) for name, parameter in model.named_parameters()}
    shapes = parameters | {name: tuple(buffer.shape) for name, buffer in saved_buffers(model).items()}
    ignored = getattr(model, "_keys_to_ignore_on_save", None) or ()
    empty = {
        name: torch.empty(shape, dtype=_written_dtype(model, name, dtype), device="meta")
        for name, shape in shapes.items()
        if name not in ignored
    }
    whole = _original(model, {_kept_name(model, name, shapes): tensor for name, tensor in empty.items()})
    single: dict[str, tuple[int, ...]] = {}
    for name, tensor in empty.items():
        single |= _shapes(_original(model, {_kept_name(model, name, shapes): tensor}))
    if single != _shapes(whole):
        wrong = sorted(name for name in single.keys() | whole.keys() if single.get(name) != _shapes(whole).get(name))
        raise ConfigError(
            f"export: {wrong[0]} and {len(wrong) - 1} more tensors of {type(model).__name__} cannot be written one at a "
            "time: the original format needs several weights at once. This model cannot be exported"
        )
    described = {name: (DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in whole.items()}
    return WeightPlan(list(empty), _share_out(described, file_bytes), sum(map(prod, parameters.values())))


def write_weights(folder: Path, plan: WeightPlan, model: Any, reader: TensorReader | None, dtype: torch.dtype) -> None:
    """Writes the files of `plan` to `folder`, and their index when there are several.

    Args:
        folder: where to.
        plan: as `plan_weights` made it for `model` and `dtype`.
        model: says how weights are named and taken apart.
        reader: has the weights as `model.NAME`; None: they are those in memory.
        dtype: of the weights written.
    """
    files = {name: TensorsToCome(folder / name, tensors) for name, tensors in plan.files.items()}
    where = {name: file for file, tensors in plan.files.items() for name in tensors}
    memory = dict(model.named_parameters()) | saved_buffers(model)
    stored = reader.names() if reader is not None else ()
    for name in plan.sources:
        sign()  # a model of hundreds of billions takes longer than a rank may stand still
        if reader is not None and f"model.{name}" in stored:
            value = reader.read(f"model.{name}")
        else:
            value = _in_memory(name, memory)
        value = value.to("cpu", _written_dtype(model, name, dtype))
        for written, tensor in _original(model, {_kept_name(model, name, memory): value}).items():
            files[where[written]].put(written, to_array(tensor.detach().contiguous()))
    for file in files.values():
        file.close()
    if len(files) > 1:
        index = {"metadata": {"total_parameters": plan.num_parameters, "total_size": plan.nbytes}, "weight_map": where}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def saved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Returns the buffers that belong to the model's weights; others are computed when it is built."""
    passing = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    return {name: buffer for name, buffer in model.named_buffers() if name not in passing}


def _in_memory(name: str, memory: Mapping[str, Tensor]) -> Tensor:
    value = memory[name].detach()
    if isinstance(value, DTensor) or hasattr(memory[name], "ds_shape"):
        raise RuntimeError(f"{name} is sharded and not in the checkpoint: it cannot be exported")
    return value


def _written_dtype(model: nn.Module, name: str, dtype: torch.dtype) -> torch.dtype:
    own: torch.dtype = _find(model, name).dtype
    return dtype if own.is_floating_point else own


def _find(model: nn.Module, name: str) -> Tensor:
    prefix, _, last = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(prefix), last)
    return tensor


def _kept_name(model: Any, name: str, names: Mapping[str, Any]) -> str:
    """Returns the name that the format keeps of several for one tensor."""
    kept: str = (getattr(model, "all_tied_weights_keys", None) or {}).get(name, name)
    return name if kept in names else kept


def _original(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    from transformers.core_model_loading import revert_weight_conversion

    converted: dict[str, Tensor] = revert_weight_conversion(model, tensors)
    return converted


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _size(dtype: str, shape: tuple[int, ...]) -> int:
    return prod(shape) * _ITEM_BYTES[dtype]


def _share_out(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], file_bytes: int
) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """Fills files in order, as huggingface_hub does."""
    full: list[dict[str, tuple[str, tuple[int, ...]]]] = []
    filling: dict[str, tuple[str, tuple[int, ...]]] = {}
    filled = 0
    for name, (dtype, shape) in tensors.items():
        size = _size(dtype, shape)
        if size > file_bytes:
            full.append({name: (dtype, shape)})
            continue
        if filled + size > file_bytes:
            full.append(filling)
            filling, filled = {}, 0
        filling[name] = (dtype, shape)
        filled += size
    files = [*full, filling] if filling else full
    if len(files) == 1:
        return {"model.safetensors": files[0]}
    return {f"model-{number:05d}-of-{len(files):05d}.safetensors": file for number, file in enumerate(files, start=1)}


_ITEM_BYTES = {name: dtype.itemsize for dtype, name in DTYPE_NAMES.items()}
