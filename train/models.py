"""Tokenizers and models from local folders. safetensors only, no code from the folder, nothing from the network."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs.errors import ConfigError
from configs.reward import is_classifier, loads_with
from configs.schema import ModelSection
from configs.staged import staged
from train import attention
from train.adapter_fit import check_adapter_fits
from train.optimizer import whole_shape
from train.quiet import quiet_libraries


def tokenizer_folder(model: ModelSection) -> Path:
    """Returns the folder that holds the tokenizer.

    Raises:
        ConfigError: the section names none, or it is not there.
    """
    given = model.tokenizer or model.path
    if not given:
        raise ConfigError("model.tokenizer: missing; give the folder of a tokenizer, as model.path is not set")
    folder = Path(given).expanduser()
    if not folder.is_dir():
        key = "model.tokenizer" if model.tokenizer else "model.path"
        raise ConfigError(f"{key}={given}: no such folder")
    return folder


def check_weights(folder: Path) -> list[Path]:
    """Returns the weight files of a model folder.

    Raises:
        ConfigError: no config.json, no weights, weights in pickle files only, or a shard that the index names is missing.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model.path={folder}: no config.json there; expected a Hugging Face model folder")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        if pickles:
            raise ConfigError(
                f"model.path={folder}: weights only in pickle files ({pickles[0]}), which can run code when read; "
                "convert them to safetensors first"
            )
        raise ConfigError(f"model.path={folder}: no weights (*.safetensors) there")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(named - {path.name for path in files})
        if missing:
            raise ConfigError(f"model.path={folder}: {missing[0]} is missing, named by {index.name}")
        files = [path for path in files if path.name in named]
    return files


def load_model(
    model: ModelSection,
    *,
    dtype: torch.dtype,
    attention_name: str,
    device: torch.device,
    seed: int,
    is_reward: bool = False,
) -> nn.Module:
    """Returns the causal language model in training mode, on `device`.

    Args:
        model: where its weights are, or its `arch` for random ones.
        dtype: type of the weights in memory.
        attention_name: as returned by `attention.choose`.
        device: where the weights go.
        seed: of random weights; every rank draws the same.
        is_reward: a classifier with one label instead, whose head the caller draws when the folder has none.
    """
    quiet_libraries()
    attention.register()
    from transformers import AutoConfig

    if model.path:
        folder = Path(model.path).expanduser()
        check_weights(folder)
        try:
            loaded = _auto_class(is_reward).from_pretrained(
                staged(folder),
                dtype=dtype,
                attn_implementation=attention_name,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                **({"num_labels": 1} if is_reward else {}),
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"model.path={folder}: cannot be loaded ({str(error).splitlines()[0]})") from error
        # An adapter names its base by this: the folder itself, not a node's own copy of it, from wherever it is read.
        loaded.name_or_path = loaded.config._name_or_path = str(folder.absolute())
    else:
        values = dict(model.arch)
        config = AutoConfig.for_model(values.pop("model_type"), **values, **({"num_labels": 1} if is_reward else {}))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            loaded = _auto_class(is_reward).from_config(config, dtype=dtype, attn_implementation=attention_name)
    loaded.config.use_cache = False
    network: nn.Module = loaded.to(device).train()
    return network


def _auto_class(is_reward: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification if is_reward else AutoModelForCausalLM


def empty_model(model: ModelSection, *, dtype: torch.dtype, attention_name: str, is_reward: bool = False) -> nn.Module:
    """Returns the model of folder `model.path` in training mode without its weights, as the surrounding context builds it.

    Raises:
        ConfigError: the folder's weights are quantized, or it holds none.
    """
    quiet_libraries()
    attention.register()
    from transformers import AutoConfig
    from transformers.initialization import no_init_weights

    folder = Path(model.path or "").expanduser()
    check_weights(folder)
    # Absolute, as an adapter names its base by it.
    config = AutoConfig.from_pretrained(folder.absolute(), local_files_only=True, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        raise ConfigError(
            f"model.path={folder}: its weights are quantized; sharded engines read bfloat16 or float32 weights: "
            "convert it first, or use engine=ddp"
        )
    if is_reward:
        config.num_labels = 1
    with no_init_weights():
        built = _auto_class(is_reward).from_config(config, dtype=dtype, attn_implementation=attention_name)
    built.config.use_cache = False
    if getattr(built, "generation_config", None) is not None and (folder / "generation_config.json").is_file():
        built.generation_config = type(built.generation_config).from_pretrained(folder, local_files_only=True)
    network: nn.Module = built.train()
    return network


def check_vocabulary(network: nn.Module, tokenizer: Any) -> None:
    """Refuses a tokenizer whose ids have no row in the embedding.

    Raises:
        ConfigError: the tokenizer's vocabulary is larger than the embedding.
    """
    rows = whole_shape(network.get_input_embeddings().weight)[0]  # type: ignore[operator]
    if len(tokenizer) > rows:
        raise ConfigError(
            f"the tokenizer knows {len(tokenizer):,} tokens, the model's embedding has {rows:,} rows; "
            "they do not belong together (model.tokenizer, model.path)"
        )


def weights_dtype(section: str, *, trained: bool, device: torch.device, precision: str) -> torch.dtype:
    """Returns the type of the weights in memory for `model.dtype`.

    auto: float32 for weights that are trained (updates of a bfloat16 weight are lost to rounding), bfloat16 for frozen
    ones when the arithmetic is bf16 on a GPU.
    """
    if section != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[section]
    frozen_on_gpu = not trained and device.type == "cuda" and precision == "bf16"
    return torch.bfloat16 if frozen_on_gpu else torch.float32


def load_exported(folder: Path, *, device: torch.device) -> tuple[Any, Any]:
    """Returns (model in evaluation mode, tokenizer) of an exported folder; an adapter comes around its base.

    Raises:
        ConfigError: the folder, or the base that its adapter names, holds no model that can be loaded.
    """
    from transformers import AutoModelForCausalLM

    from data_pipelines.tokenize import load_tokenizer

    quiet_libraries()
    adapter = folder / "adapter_config.json"
    base = folder
    if adapter.is_file():
        name = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        base = Path(name or "").expanduser()
        if not name or not (base / "config.json").is_file():
            raise ConfigError(
                f"{adapter}: its base model {name or '(random weights)'} is not there; base_model_name_or_path in it is to name the "
                "folder of that model"
            )
    check_weights(base)
    if adapter.is_file():
        check_adapter_fits(folder, base)
    if is_classifier(base):
        raise ConfigError(
            f"{base}: holds a reward model, which scores answers and writes none; {loads_with(base)}"
        )
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    if adapter.is_file():
        from peft import PeftModel

        # peft warns of experts whose adapters were saved in the form that it would convert them to.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys", RuntimeWarning)
            model = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    return model.to(device).eval(), load_tokenizer(str(folder))
