"""Does an adapter belong to this base model? Asked of shapes alone, before any weight is loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from configs.errors import ConfigError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


def check_adapter_fits(adapter: Path, base: Path) -> None:
    """Compares the adapter's tensors with the layers of its base.

    Raises:
        ConfigError: a tensor has no layer there, or one of another shape; names the tensor and both shapes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    path = adapter / ADAPTER_WEIGHTS
    if not path.is_file():
        raise ConfigError(f"{path}: missing; expected the adapter's weights")
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with safe_open(path, framework="pt") as file:
        for name in list(file.keys()):
            found = tuple(file.get_slice(name).get_shape())
            if problem := _problem(model, name, found):
                raise ConfigError(
                    f"{path}: tensor {name} of shape {list(found)} {problem} of {base}: adapter and base are of different "
                    "architectures; give the base that the adapter was trained on (base_model_name_or_path)"
                )


def _problem(model: nn.Module, name: str, shape: tuple[int, ...]) -> str | None:
    """Returns why an adapter's tensor does not fit, as the middle of a sentence; None when it does."""
    # Adapters of several tensors of one layer (experts) wrap one another, and each wrapper adds a step to the name.
    parts = [part for part in name.removeprefix(_PREFIX).split(".") if part != "base_layer"]
    cut = next((i for i, part in enumerate(parts) if part.startswith("lora_")), None)
    place = ".".join(parts[:cut] if cut is not None else parts[:-1])
    try:
        layer = model.get_submodule(place)
    except AttributeError:
        return f"has no layer {place} in the model"
    if cut is None:
        own = getattr(layer, parts[-1], None)
        return None if own is None or tuple(own.shape) == shape else f"does not fit {list(own.shape)}"
    if not isinstance(layer, nn.Linear):
        return None
    expected = {"lora_A": (1, layer.in_features), "lora_B": (0, layer.out_features)}.get(parts[cut])
    if expected is None or (len(shape) == 2 and shape[expected[0]] == expected[1]):
        return None
    return f"does not fit the layer of {list(layer.weight.shape)}"
