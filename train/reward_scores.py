"""A reward model as its objective sees it: one number for each labelled position, that of an answer's last token.

The network is transformers' own sequence classifier with one label, so that the exported folder loads without this
project: `AutoModelForSequenceClassification.from_pretrained(FOLDER)` gives the same rewards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn

from configs.errors import ConfigError
from data_pipelines.collate import Batch
from train.attention import model_inputs
from train.models import check_weights
from train.optimizer import whole_shape
from train.scores import Scores, base_model
from train.weights import ModelFolder

HEAD = "score.weight"


class RewardScores(Scores):
    """Scores of a sequence classifier with one label: what engines prepare, with rewards for log-probabilities."""

    def forward(self, batch: Batch, *, plainly: bool = False) -> Tensor:
        """Returns the reward at each labelled token, `[N]` fp32, in the order of `batch.targets`.

        Args:
            batch: one micro-batch.
            plainly: by the classifier's own forward pass, each document alone; its last token must be the labelled one.
        """
        if plainly:
            return self._reference(batch)
        base = base_model(self.model)
        with self._autocast_context(batch), self._watch(batch):
            hidden = base.base_model(**model_inputs(batch, self._attention)).last_hidden_state
        # `target_index` is where a label is predicted, one to its left; a reward is read at the token itself.
        picked = hidden.reshape(-1, hidden.shape[-1])[batch.target_index + 1]
        # Not by autocast: rewards of three digits would tie, and a pair's margin is the difference of two of them.
        rewards: Tensor = base.score(picked.to(base.score.weight.dtype))
        return rewards.float().squeeze(-1)

    def _reference(self, batch: Batch) -> Tensor:
        ids, labels = batch.input_ids.reshape(-1), batch.labels.reshape(-1)
        parts = []
        for begin, end in pairwise(batch.cu_seqlens.tolist()):
            if (labels[begin:end] == -100).all():
                continue
            with self._autocast_context(batch):
                logits = self.model(input_ids=ids[None, begin:end], use_cache=False).logits
            parts.append(logits[0].float())
        return torch.cat(parts)


def add_head(model: nn.Module, path: str | None, seed: int) -> None:
    """Gives the scalar head its starting value: that of the folder `path` when it is a reward model, a drawn one otherwise."""
    head = cast(Any, model).score.weight
    if path and HEAD in _names(path):
        return
    with torch.no_grad():
        head.copy_(initial_head(model, seed))


def set_padding(model: nn.Module, pad_id: int, stop_ids: Collection[int]) -> None:
    """Tells the classifier its padding, behind which it looks for an answer's last token.

    Raises:
        ConfigError: the tokenizer pads with a token that ends answers, so that the classifier would look before it.
    """
    if pad_id in stop_ids:
        raise ConfigError(
            f"model.tokenizer: token {pad_id} both pads and ends an answer; a reward is read at the last token that is not "
            "padding, so objective=reward expects a pad token of its own"
        )
    base_model(model).config.pad_token_id = pad_id


def initial_head(model: nn.Module, seed: int) -> Tensor:
    """Returns the fp32 value that a new head starts from, `[1, hidden]`, alike for every engine and rank count.

    Drawn like an adapter's weights from a generator seeded by hash(seed, name); normal with the model's initializer_range.
    """
    digest = hashlib.sha256(f"{seed}/{HEAD}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    config = base_model(model).config
    drawn = torch.randn(whole_shape(base_model(model).score.weight), generator=generator)
    return drawn * float(getattr(config, "initializer_range", 0.02))


def check_head(path: str) -> None:
    """Refuses a folder whose classifier has more labels than one.

    Raises:
        ConfigError: naming the shape of its head.
    """
    shapes = [shape for name, shape in _shapes(path) if name == HEAD]
    if shapes and shapes[0][0] != 1:
        raise ConfigError(
            f"model.path={path}: classifies into {shapes[0][0]} labels; objective=reward starts from a causal model, or from "
            "a classifier with one label"
        )


class HeadedFolder:
    """The weights of a model folder, and a drawn head where the folder holds none: for engines that read weights themselves."""

    def __init__(self, folder: ModelFolder, head: Tensor) -> None:
        self.folder = folder.folder
        self._inner, self._head = folder, head

    @classmethod
    def around(cls, folder: ModelFolder, model: nn.Module, seed: int) -> ModelFolder:
        """Returns `folder` with a head."""
        if HEAD in folder.names():
            return folder
        return cast(ModelFolder, cls(folder, initial_head(model, seed)))

    def names(self) -> Collection[str]:
        """Returns the names of the files' weights, and the head's."""
        return {*self._inner.names(), HEAD}

    def read(self, name: str) -> Tensor:
        """Returns a whole tensor."""
        return self._head if name == HEAD else self._inner.read(name)


def _shapes(path: str) -> list[tuple[str, list[int]]]:
    found = []
    for file in check_weights(Path(path).expanduser()):
        with safe_open(file, framework="pt") as handle:
            found += [(name, handle.get_slice(name).get_shape()) for name in handle.keys()]  # noqa: SIM118  # no mapping
    return found


def _names(path: str) -> set[str]:
    return {name for name, _ in _shapes(path)}
