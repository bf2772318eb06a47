"""The trained model of a run, put together from its frozen configuration and its checkpoint: what an export is held against.

Nothing of it comes from the exported folder: an adapter whose alpha was edited there, or a tokenizer that lost its template,
is seen because this one has neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs.errors import CheckpointError, ConfigError
from configs.reward import no_writer
from configs.runfolder import RunFolder, read_json
from configs.schema import RunConfig
from data_pipelines import prompts
from data_pipelines.index import Store, open_part
from data_pipelines.tokenize import load_tokenizer, read_template
from train import models
from train.adapters import attach
from train.checkpoint import CheckpointReader
from train.checkpoint_reading import checkpoint_of
from train.frozen import frozen_config
from train.parity import NUM_PROMPTS, PROMPT_TOKENS, Gate, Trained, fixed_gate
from train.shards import TensorReader


def trained_model(run: RunFolder) -> Trained:
    """Returns the trained model of a finished run: its best weights, fp32 on the CPU.

    Raises:
        ConfigError: the starting weights or the tokenizer are not there, or are those of another architecture.
        CheckpointError: the run is not done, or its best checkpoint is gone.
    """
    config, result = frozen_config(run), read_json(run.result_path)
    if result is None:
        raise CheckpointError(f"{run.path}: not done (no result.json); expected a finished run: aisc runs show {run.name}")
    if config.objective.name == "reward":
        raise ConfigError(no_writer(run.path, "aisc export"))
    step = int(result["best_step"] or result["steps"])
    tokenizer = load_tokenizer(str(models.tokenizer_folder(config.model)))
    if (template := read_template(config.data.chat_template)) is not None:
        tokenizer.chat_template = template
    cpu = torch.device("cpu")
    base = models.load_model(config.model, dtype=torch.float32, attention_name="sdpa", device=cpu, seed=config.training.seed)
    model = attach(base, config.adapter, config.training.seed)
    load_trained(model, CheckpointReader(checkpoint_of(run, step), ("model.",)))
    model.eval()
    vocab_size = base.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    return Trained(model, tokenizer, gate_of(run, config, tokenizer, vocab_size))


def load_trained(model: nn.Module, reader: TensorReader) -> None:
    """Copies every trained parameter from a checkpoint.

    Raises:
        ConfigError: checkpoint and model do not have the same trained tensors; names the first one.
    """
    known = {f"model.{name}": parameter for name, parameter in model.named_parameters()}
    for name in reader.names():
        if name not in known:
            raise ConfigError(f"checkpoint tensor {name}: the model has none of this name; they are of different architectures")
        if tuple(known[name].shape) != tuple(reader.shape(name)):
            raise ConfigError(
                f"checkpoint tensor {name}: shape {list(reader.shape(name))}, the model's is {list(known[name].shape)}; "
                "they are of different architectures"
            )
        with torch.no_grad():
            known[name].copy_(reader.read(name))
    missing = [name for name, parameter in known.items() if parameter.requires_grad and name not in reader.names()]
    if missing:
        raise ConfigError(f"trained tensor {missing[0]} is not in the checkpoint; they are of different architectures")


def gate_of(run: RunFolder, config: RunConfig, tokenizer: Any, vocab_size: int) -> Gate:
    """Returns the gate that asks held-out prompts of the run's store, or fixed ids where it held nothing out."""
    start = next((start for link in run.chain() if (start := link.attempt.read_start())), {})
    folder = Path(str(start.get("store_folder", "")))
    store = open_part(folder, "validation") if folder.is_dir() else None
    return gate_for(store, tokenizer, config, vocab_size)


def gate_for(store: Store | None, tokenizer: Any, config: RunConfig, vocab_size: int) -> Gate:
    """Returns the gate for a held-out store; fixed ids without one."""
    stop = prompts.stop_ids(tokenizer, config.data)
    asked = [held.prompt[-PROMPT_TOKENS:] for held in prompts.held_out_prompts(store, NUM_PROMPTS)]
    if not asked:
        return fixed_gate(vocab_size, stop_ids=stop, pad_id=tokenizer.pad_token_id)
    return Gate(asked, stop, tokenizer.pad_token_id or 0)


def checkpoint_or_none(run: RunFolder) -> Trained | None:
    """Returns the trained model of a run; None when its checkpoint, or what it started from, is no longer there."""
    result = read_json(run.result_path)
    if result is None:
        return None
    config, step = frozen_config(run), int(result["best_step"] or result["steps"])
    starts = [Path(path).expanduser() for path in (config.model.path, config.model.tokenizer) if path]
    if config.objective.name == "reward" or not all(path.is_dir() for path in starts):
        return None
    try:
        checkpoint_of(run, step)
    except CheckpointError:
        return None
    return trained_model(run)
