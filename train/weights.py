"""Starting weights read straight from safetensors, each rank its own part: no rank ever holds the whole model.

Files are memory-mapped, so ranks of one node share what is read from disk. transformers keeps some weights in another
form than the files (experts of a layer as one tensor): its own conversion table says which, and one such tensor at a
time is put together.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from configs.errors import ConfigError
from train.adapters import initial_value
from train.engines import Engine
from train.models import check_weights
from train.optimizer import whole_shape
from train.scores import Scores


@dataclass(slots=True)
class ModelFolder:
    """The weights of a Hugging Face folder under the names that the model in memory gives them."""

    folder: Path
    model: Any
    _files: dict[str, Any]
    _sources: dict[str, list[tuple[str | None, str]]]
    _converters: dict[str, Any]
    _last: tuple[str, Tensor] | None = field(default=None)

    @classmethod
    def open(cls, path: str, model: nn.Module) -> ModelFolder:
        """Opens the files of folder `path` for `model`, a transformers model that may be empty.

        Raises:
            ConfigError: the folder holds no weights that can be read.
        """
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

        folder = Path(path).expanduser()
        handles = [safe_open(file, framework="pt") for file in check_weights(folder)]
        files = {key: handle for handle in handles for key in list(handle.keys())}  # type: ignore[no-untyped-call]
        transforms = get_model_conversion_mapping(model)
        renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
        converters = [t for t in transforms if isinstance(t, WeightConverter)]
        known: dict[str, Any] = dict.fromkeys(_names(model), True)
        sources: dict[str, list[tuple[str | None, str]]] = {}
        for key in sorted(files, key=dot_natural_key):
            name, pattern = rename_source_key(key, renamings, converters, model.base_model_prefix, known)
            if name in known:
                sources.setdefault(name, []).append((pattern, key))
        patterns = {pattern: converter for converter in converters for pattern in converter.source_patterns}
        return cls(folder, model, files, sources, patterns)

    def names(self) -> Collection[str]:
        """Returns the names of parameters and buffers that the files hold."""
        return self._sources.keys()

    def read(self, name: str) -> Tensor:
        """Returns a whole tensor; memory-mapped where the files hold it as it is."""
        sources = self._sources[name]
        pattern, key = sources[0]
        if pattern is None:
            tensor: Tensor = self._files[key].get_tensor(key)
            return tensor
        if self._last is None or self._last[0] != name:
            self._last = (name, self._convert(name, sources))
        return self._last[1]

    def _convert(self, name: str, sources: list[tuple[str | None, str]]) -> Tensor:
        converter = copy.deepcopy(self._converters[sources[0][0] or ""])
        for pattern, key in sources:
            converter.add_tensor(name, key, pattern, self._files[key].get_tensor(key))
        made = converter.convert(name, model=self.model, config=self.model.config)[name]
        tensor: Tensor = made[0] if isinstance(made, list) else made
        return tensor


@dataclass(frozen=True, slots=True)
class StartingWeights:
    """What every parameter of a model starts from, by its own name: the folder's weights, or an adapter's drawn ones."""

    folder: ModelFolder
    shapes: dict[str, tuple[int, ...]]
    seed: int

    def names(self) -> Collection[str]:
        """Returns the names of all parameters."""
        return self.shapes.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the whole parameter."""
        return self.shapes[name]

    def read(self, name: str) -> Tensor:
        """Returns the whole parameter."""
        plain = plain_name(name)
        if plain not in self.folder.names():
            return initial_value(name, self.shapes[name], self.seed)
        value = self.folder.read(plain)
        if tuple(value.shape) != self.shapes[name]:
            raise ConfigError(
                f"model.path={self.folder.folder}: {plain} has shape {tuple(value.shape)}, config.json says {self.shapes[name]}"
            )
        return value

    def read_flat(self, name: str, start: int, stop: int) -> Tensor:
        """Returns a range of the flattened parameter; of a memory-mapped one no more is read from disk."""
        return self.read(name).reshape(-1)[start:stop]


def fill(engine: Engine, scores: Scores, folder: ModelFolder, seed: int) -> None:
    """Puts starting weights in place through `engine`, and buffers that the files hold.

    Raises:
        ConfigError: a weight of the model is not in the files, or has another shape.
    """
    shapes = {name: whole_shape(parameter) for name, parameter in scores.model.named_parameters()}
    missing = [name for name in shapes if not is_adapter(name) and plain_name(name) not in folder.names()]
    if missing:
        raise ConfigError(
            f"model.path={folder.folder}: no tensor {plain_name(missing[0])} there, and {len(missing) - 1} more; "
            "the files do not belong to this config.json"
        )
    engine.load_weights(StartingWeights(folder, shapes, seed))
    with torch.no_grad():
        for name, buffer in scores.model.named_buffers():
            if plain_name(name) in folder.names():
                buffer.copy_(folder.read(plain_name(name)))


def is_adapter(name: str) -> bool:
    """True for a parameter that an adapter adds."""
    return ".lora_" in name


def plain_name(name: str) -> str:
    """Returns a parameter's name without what peft puts around it."""
    # Around experts, which are two parameters of one module, there are two layers of it.
    return re.sub(r"\.(base_layer|original_module|modules_to_save\.default)(?=\.)", "", name.removeprefix("base_model.model."))


def _names(model: nn.Module) -> list[str]:
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    return [plain_name(name) for name, _ in named if not is_adapter(name)]
