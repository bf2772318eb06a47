"""A checkpoint as a model folder, exported the way its run exports the best one. On the CPU, one process."""

from __future__ import annotations

from pathlib import Path

import torch

from configs.errors import ConfigError
from configs.schema import RunConfig
from data_pipelines import prompts
from data_pipelines.tokenize import load_tokenizer, read_template
from train import adapters, attention, models
from train.checkpoint import CheckpointReader
from train.checkpoint_reading import Checkpoint
from train.export import export_model, original_dtype, set_stop_tokens


def export_checkpoint(checkpoint: Checkpoint, config: RunConfig, folder: Path) -> Path:
    """Writes the weights of `checkpoint` to `folder` as a Hugging Face model or adapter; returns it.

    Args:
        checkpoint: verified.
        config: of its run.
        folder: must not exist.

    Raises:
        ConfigError: a reward model, which is no language model.
    """
    if config.objective.name == "reward":
        raise ConfigError("a checkpoint of objective=reward is no language model; aisc eval scores those of the others")
    cpu = torch.device("cpu")
    tokenizer = load_tokenizer(str(models.tokenizer_folder(config.model)))
    if (template := read_template(config.data.chat_template)) is not None:
        tokenizer.chat_template = template
    dtype = original_dtype(config.model.path)
    model = models.load_model(
        config.model, dtype=dtype, attention_name=attention.choose("sdpa", cpu)[0], device=cpu, seed=config.training.seed
    )
    pad_id = tokenizer.pad_token_id
    set_stop_tokens(model, prompts.stop_ids(tokenizer, config.data), pad_id if pad_id is not None else tokenizer.eos_token_id)
    model = adapters.attach(model, config.adapter, config.training.seed)
    reader = CheckpointReader(checkpoint, ("model.",))
    return export_model(folder, model, tokenizer, config.data, reader=reader, merge=False, dtype=dtype, card="").folder
