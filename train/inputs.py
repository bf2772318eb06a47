"""What a run learns from and how long: tokenizer, prepared data, plan. Known before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from configs.durations import parse_duration
from configs.errors import ConfigError
from configs.schema import RunConfig
from data_pipelines import prompts
from data_pipelines.build import Prepared, prepare
from data_pipelines.index import Store
from data_pipelines.tokenize import load_tokenizer, read_template
from train import models
from train.data_progress import data_progress
from train.state import Plan, make_plan

WANTED_STEPS = 100


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is learned from, and how long."""

    tokenizer: Any
    tokenizer_path: str
    prepared: Prepared
    plan: Plan
    pad_id: int
    stop_ids: list[int]


def read_inputs(config: RunConfig, command: str, console: Console | None) -> Inputs:
    """Loads the tokenizer, prepares the data and plans the run.

    Args:
        config: resolved.
        command: what the user typed after `aisc train`, for advice in errors.
        console: shows the preparation; None shows nothing.

    Raises:
        UserError: data or tokenizer cannot be used, or the run is too short to learn anything.
    """
    tokenizer_path = str(models.tokenizer_folder(config.model))
    tokenizer = load_tokenizer(tokenizer_path)
    template = read_template(config.data.chat_template)
    if template is not None:
        tokenizer.chat_template = template
    with data_progress(console) as report:
        prepared = prepare(
            config.data,
            config.objective.name,
            tokenizer_path,
            seed=config.training.seed,
            on_progress=report,
            command=command,
        )
    pad_id = tokenizer.pad_token_id
    return Inputs(
        tokenizer,
        tokenizer_path,
        prepared,
        plan_run(config, prepared.train),
        # Padding is never attended to nor learned, so any id serves where a tokenizer has none for it.
        pad_id if pad_id is not None else (tokenizer.eos_token_id or 0),
        prompts.stop_ids(tokenizer, config.data),
    )


def plan_run(config: RunConfig, store: Store) -> Plan:
    """Returns the plan of steps, evaluations and saves.

    Raises:
        ConfigError: fewer optimizer steps than `training.min_steps`.
    """
    training = config.training
    duration = parse_duration(training.duration)

    def steps_with(global_batch_size: int) -> int:
        return duration.steps(
            total_steps=None,
            rows_per_epoch=store.num_rows,
            global_batch_size=global_batch_size,
            sequence_length=store.sequence_length,
        )

    steps = steps_with(training.global_batch_size)
    if steps < training.min_steps:
        smaller = max(1, training.global_batch_size * steps // WANTED_STEPS)
        remedy = f"training.global_batch_size={smaller} gives {steps_with(smaller)}"
        if steps_with(smaller) < training.min_steps:
            remedy = f"even one row a step gives {steps_with(1)}: more data or a longer training.duration is needed"
        raise ConfigError(
            f"training.global_batch_size={training.global_batch_size}: {store.num_rows} packed rows and "
            f"{training.duration} make {steps} optimizer steps, too few to learn from (training.min_steps="
            f"{training.min_steps}); {remedy}; training.min_steps=0 allows it"
        )
    return make_plan(steps, config.evaluation, config.checkpoint)
