"""The model with everything that moves it: adapter, optimizer, engine; rehearsed and compared before step 1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from configs.engine_rules import capability_problems
from configs.errors import ConfigError
from configs.schema import RunConfig
from configs.staged import staged
from data_pipelines.collate import collate
from data_pipelines.order import Order
from train import adapters, attention, models
from train.distributed import Context
from train.engines import Engine, build_engine
from train.export import set_stop_tokens
from train.guards import ReferenceCheck, check_reference
from train.inputs import Inputs
from train.objectives import Documents, Objective, build_objective
from train.optimizer import build_optimizer
from train.rehearsal import Rehearsal, choose_micro_batch, rehearse, total_memory_bytes, worst_batch
from train.reward_scores import HeadedFolder, RewardScores, add_head, check_head, set_padding
from train.router import Balanced, Router, routers
from train.scores import Scores, base_model
from train.weights import ModelFolder, fill


@dataclass(frozen=True, slots=True)
class Learner:
    """The model with everything that moves it."""

    model: nn.Module
    scores: Scores
    engine: Engine
    module: nn.Module
    objective: Objective
    router: Router | None
    rehearsal: Rehearsal
    reference: ReferenceCheck | None
    attention: str
    device_name: str


def build_learner(config: RunConfig, context: Context, inputs: Inputs) -> Learner:
    """Builds model, adapter, optimizer and engine; finds the micro-batch; rehearses; compares with the plain model."""
    torch.manual_seed(config.training.seed * 1_000_003 + context.rank)
    if context.device.type == "cuda" and (
        problems := capability_problems(config, torch.cuda.get_device_capability(context.device))
    ):
        raise ConfigError(problems)
    torch.backends.cuda.matmul.allow_tf32 = config.training.tf32
    engine = build_engine(config.engine, config.training, context)
    model, reason = build_model(config, context, inputs, engine)
    router = Router(model, weight=config.model.router_balance) if routers(model) else None
    precision = config.training.precision if engine.autocasts else "fp32"
    is_reward = config.objective.name == "reward"
    scores = (RewardScores if is_reward else Scores)(model, precision=precision, router=router)
    module = engine.prepare(
        scores, lambda named: build_optimizer(config.optimizer, named, float(config.optimizer.lr))
    )
    if engine.reads_weights and config.model.path:
        folder = ModelFolder.open(str(staged(Path(config.model.path).expanduser())), base_model(model))
        if is_reward:
            folder = HeadedFolder.around(folder, model, config.training.seed)
        fill(engine, scores, folder, config.training.seed)
    objective = make_objective(config, router, Documents.of(inputs.prepared.train))
    return Learner(
        model=model,
        scores=scores,
        engine=engine,
        module=module,
        objective=objective,
        router=router,
        rehearsal=find_rehearsal(config, context, engine, module, objective, base_model(model).config.vocab_size),
        reference=compare_with_reference(config, context, inputs, module),
        attention=reason,
        device_name=torch.cuda.get_device_name(context.device) if context.device.type == "cuda" else "CPU",
    )


def make_objective(config: RunConfig, router: Router | None, documents: Documents) -> Objective:
    """Returns the objective of the run for the documents of one part, with the experts' balance where it is asked for."""
    objective = build_objective(config.objective, documents)
    return Balanced(objective, router) if router and config.model.router_balance else objective


def build_model(config: RunConfig, context: Context, inputs: Inputs, engine: Engine) -> tuple[nn.Module, str]:
    """Returns the model with its adapter, and why it has its attention kernel.

    Weights are in place, but for an engine that reads each rank's part of them itself, later.
    """
    kernel, reason = attention.choose(config.model.attention, context.device)
    dtype = models.weights_dtype(
        config.model.dtype,
        trained=config.adapter.name == "none",
        device=context.device,
        precision=config.training.precision,
    )
    is_reward = config.objective.name == "reward"
    if is_reward and config.model.path:
        check_head(config.model.path)
    if engine.loads_shards and config.model.path:
        with engine.construction():
            model = models.empty_model(config.model, dtype=dtype, attention_name=kernel, is_reward=is_reward)
        model.tie_weights()  # type: ignore[operator]  # where parameters are replaced as they are made, tied ones part
    else:
        model = models.load_model(
            config.model,
            dtype=dtype,
            attention_name=kernel,
            device=engine.weights_device,
            seed=config.training.seed,
            is_reward=is_reward,
        )
        if is_reward:
            add_head(model, config.model.path, config.training.seed)
    models.check_vocabulary(model, inputs.tokenizer)
    if is_reward:
        set_padding(model, inputs.pad_id, inputs.stop_ids)
    else:
        set_stop_tokens(model, inputs.stop_ids, inputs.pad_id)
    model = adapters.attach(model, config.adapter, config.training.seed)
    adapters.recompute_activations(model, config.training.gradient_checkpointing)
    return model, reason


def find_rehearsal(
    config: RunConfig, context: Context, engine: Engine, module: nn.Module, objective: Objective, vocab_size: int
) -> Rehearsal:
    """Chooses the micro-batch when it is auto, and takes the longest legal batch through every stage."""
    length = config.data.sequence_length
    rows, reason = config.training.micro_batch_size, "as given"
    if not isinstance(rows, int):
        rows, reason = choose_micro_batch(
            engine,
            module,
            objective,
            rows_per_rank=-(-config.training.global_batch_size // engine.dims.dp_size),
            sequence_length=length,
            vocab_size=vocab_size,
            device=context.device,
        )
    peak = rehearse(engine, module, objective, worst_batch(rows, length, vocab_size, context.device))
    return Rehearsal(rows, reason, peak, total_memory_bytes(context.device))


def compare_with_reference(
    config: RunConfig, context: Context, inputs: Inputs, module: nn.Module
) -> ReferenceCheck | None:
    """Compares one row of batch 0 with the plain model; all ranks take the same row."""
    if not config.guard.reference_check:
        return None
    store = inputs.prepared.train
    order = Order(store.num_rows, store.fingerprint, config.training.seed, config.training.global_batch_size)
    for row in order.rows(0):
        batch = collate(store, np.array([row], dtype=np.int64), inputs.pad_id).to(context.device)
        if batch.num_targets:
            return check_reference(module, batch, config.training.precision)
    return None
