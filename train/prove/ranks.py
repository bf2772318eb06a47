"""What runs inside forked ranks: the small model, the plain loop, one case of real training code. Each returns JSON."""

from __future__ import annotations

import copy
import functools
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from configs.errors import UserError
from configs.schema import RunConfig
from configs.schema.objective import LIKELIHOOD
from data_pipelines.account import Account
from data_pipelines.build import Prepared
from data_pipelines.collate import Batch
from data_pipelines.index import Store
from data_pipelines.loader import Loader
from data_pipelines.order import Order
from train import distributed
from train.distributed import Context
from train.evaluate import Evaluator
from train.inputs import Inputs
from train.learner import Learner, build_learner, make_objective
from train.objectives import Documents, Measured, Objective, Term, look_at_window
from train.prove import reference
from train.prove.cases import Case
from train.prove.plain import Plain, Preference, make_plain
from train.prove.routing import Recorder, Replay, read_routes
from train.prove.sample import Sample, take_sample
from train.state import Plan
from train.step import train_step

# What the first step should take off the loss by its own slope: enough that a mistake in an update shows in the next
# losses, little enough that rounding does not grow.
FIRST_DROP = 0.1
# Clips the first step; later ones, with smaller norms, may not be.
CLIPPED_SHARE = 0.75
WEIGHT_DECAY = 0.1
DROPOUT = 0.5


@dataclass(frozen=True, slots=True)
class Bench:
    """Where everything lies.

    Attributes:
        folder: temporary; config: the user's, resolved.
        model: folder of the weights that both sides start from.
        optimizers: names; rates and clip are found by the plain loop.
    """

    folder: Path
    config: RunConfig
    model: Path
    tokenizer_path: str
    tokenizer: Any
    sample: Sample
    steps: int
    is_mixture: bool

    @property
    def optimizers(self) -> list[str]:
        return list(dict.fromkeys(["sgd", self.config.optimizer.name]))

    @property
    def references(self) -> Path:
        """The file of the reference's log-probabilities, by document in the order of the plain loop."""
        return self.folder / "references.npy"

    def routes(self, optimizer: str) -> Path:
        """Returns the file of the experts that the plain loop chose."""
        return self.folder / f"routes-{optimizer}.npz"


@dataclass(frozen=True, slots=True)
class Settings:
    """What makes a few steps telling: gradient norm to clip at, learning rate by optimizer."""

    max_grad_norm: float
    rates: dict[str, float]


def guarded(function: Any, *arguments: Any) -> dict[str, Any]:
    """Returns {"value": ...}, or {"refused": the sentence} when what the user gave cannot be used."""
    try:
        return {"value": function(*arguments)}
    except UserError as error:
        return {"refused": str(error)}


def write_sample(config: RunConfig, tokenizer_path: str, folder: Path, command: str) -> dict[str, Any]:
    """Takes the sample; returns its figures."""
    sample = take_sample(config, tokenizer_path, folder, command)
    return {name: getattr(sample, name) for name in Sample.__slots__}


def write_model(values: dict[str, Any], seed: int, folder: Path) -> None:
    """Writes random weights of the shape `values` as a model folder."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from train.quiet import quiet_libraries

    quiet_libraries()
    config = AutoConfig.for_model(values["model_type"], **{k: v for k, v in values.items() if k != "model_type"})
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)


def run_plainly(bench: Bench, device: str) -> dict[str, Any]:
    """Returns settings, and for each optimizer the curve, the evaluation after it and the weights that moved."""
    _use_threads(1)
    model = reference.load_plainly(bench.model, _adapter(bench), bench.config.training.seed, torch.device(device))
    set_dropout(model, 0.0)
    recorder = Recorder()
    plain = make_plain(bench.config.objective, bench.folder / "alone" / "train", model, functools.partial(recorder.document, 0))
    if isinstance(plain, Preference):
        np.save(bench.references, np.array(plain.references))
    settings = find_settings(model, plain, bench.optimizers)
    if bench.is_mixture:
        recorder.attach(model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    found: dict[str, Any] = {}
    for name in bench.optimizers:
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.copy_(start[key])
        recorder.routes.clear()
        optimizer = reference.plain_optimizer(model, _optimizer(bench, name, settings), settings.rates[name])
        curve = train_plainly(model, optimizer, plain, bench.steps, settings.max_grad_norm, recorder)
        moved = [key for key, p in model.named_parameters() if not torch.equal(p, start[key])]
        eval_loss = plain.evaluate(model, functools.partial(recorder.document, bench.steps))
        recorder.save(bench.routes(name))
        found[name] = {**curve, "eval_loss": eval_loss, "moved": moved}
    return {"max_grad_norm": settings.max_grad_norm, "rates": settings.rates, "runs": found}


def train_plainly(
    model: nn.Module, optimizer: torch.optim.Optimizer, plain: Plain, steps: int, max_grad_norm: float, recorder: Recorder
) -> reference.Curve:
    """Returns loss and gradient norm, before clipping, of each step."""
    curve: reference.Curve = {"loss": [], "grad_norm": []}
    trained = [p for p in model.parameters() if p.requires_grad]
    for step in range(steps):
        curve["loss"].append(plain.accumulate(model, functools.partial(recorder.document, step)))
        curve["grad_norm"].append(reference.clip(trained, max_grad_norm))
        optimizer.step()
        optimizer.zero_grad()
    return curve


def find_settings(model: nn.Module, plain: Plain, optimizers: list[str]) -> Settings:
    """Returns rates and clipping from the first gradient."""
    plain.accumulate(model, functools.partial(Recorder().document, 0))
    norm = reference.total_norm(model.parameters())
    total = float(sum(p.grad.double().abs().sum() for p in model.parameters() if p.grad is not None))
    model.zero_grad(set_to_none=True)
    clip = CLIPPED_SHARE * norm
    # SGD's first step lowers the loss by lr * clip * norm, AdamW's (a sign in each place) by lr * sum of |g|.
    rates = {"sgd": FIRST_DROP / (clip * norm), "adamw": FIRST_DROP / total}
    return Settings(clip, {name: rates[name] for name in optimizers})


def run_case(bench: Bench, case: Case, settings: Settings, backend: str) -> dict[str, Any]:
    """Takes the steps of one case on this rank with the code of a run; returns what they gave."""
    _use_threads(case.world)
    config = configure(bench, case, settings, backend)
    context = distributed.start(backend, "cuda" if backend == "nccl" else "cpu")
    try:
        store = Store(bench.folder / ("packed" if case.packing else "alone") / "train")
        learner = build_learner(config, context, _inputs(bench, config, store))
        return measure(bench, case, config, context, store, learner)
    finally:
        distributed.shutdown()


def configure(bench: Bench, case: Case, settings: Settings, backend: str) -> RunConfig:
    """Returns the user's configuration in this arrangement: the sample, fixed rates, nothing random but the start."""
    config = copy.deepcopy(bench.config)
    sample = bench.sample
    rows, row_tokens = (
        (sample.packed_rows, sample.row_tokens) if case.packing else (sample.items, sample.piece_tokens)
    )
    config.model.path, config.model.tokenizer = str(bench.model), bench.tokenizer_path
    config.model.arch, config.model.random_weights = {}, False
    config.model.attention = case.attention
    config.model.router_balance = 0.0  # the plain loop has the likelihood alone
    if case.precision == "fp32":
        config.model.dtype = "float32"
    config.adapter = _adapter(bench)
    config.data.sequence_length, config.data.packing = row_tokens, case.packing
    config.training.global_batch_size = rows
    config.training.micro_batch_size = case.micro_rows or -(-rows // case.world)
    config.training.precision = case.precision
    config.training.max_grad_norm = settings.max_grad_norm
    config.optimizer = _optimizer(bench, case.optimizer, settings)
    config.lr_scheduler.name, config.lr_scheduler.warmup = "constant", "0"
    config.engine.name, config.engine.processes, config.engine.backend = case.engine, case.world, backend
    if config.engine.shard_size is not None and case.world % config.engine.shard_size:
        config.engine.shard_size = None  # more ranks share a copy than there are here: all of these share one
    config.guard.reference_check = False
    if case.precision == "fp32":
        config.training.tf32 = False
    return config


def measure(
    bench: Bench, case: Case, config: RunConfig, context: Context, store: Store, learner: Learner
) -> dict[str, Any]:
    """Takes the steps; then evaluates with every dropout at one half, which must be off there."""
    engine, micro = learner.engine, config.training.micro_batch_size
    assert isinstance(micro, int)
    set_dropout(learner.model, 0.0)
    replay = Replay(read_routes(bench.routes(case.optimizer)), store) if bench.is_mixture and case.replays else None
    if replay:
        replay.attach(learner.scores, learner.model)
    pad_id = _pad_id(bench)
    loader = Loader(
        store,
        Order(store.num_rows, store.fingerprint, config.training.seed, store.num_rows),
        dp_rank=engine.dims.dp_rank,
        dp_size=engine.dims.dp_size,
        micro_batch_size=micro,
        pad_token_id=pad_id,
        device=context.device,
    )
    objective = objective_of(bench, config, store, learner)
    start = digests(learner)
    found: dict[str, Any] = {"loss": [], "grad_norm": [], "applied": [], "spoiled": []}
    for step in range(bench.steps):
        if replay:
            replay.step = step
        window = loader.window(step)
        found["micro_batches"] = len(window)
        if case.is_spoiled and step in (1, 2):
            spoiled = Spoiled(objective, in_loss=step == 2) if context.is_main else objective
            found["spoiled"].append(spoiled_step(learner, window, objective, spoiled))
        look_at_window(objective, learner.module, window)
        outcome = train_step(engine, learner.module, objective, window, stop=False)
        found["loss"].append(outcome.loss)
        found["grad_norm"].append(outcome.grad_norm)
        found["applied"].append(outcome.applied)
    loader.close()
    found["moved"] = _changed(start, digests(learner))
    if replay:
        replay.step = bench.steps
    set_dropout(learner.model, DROPOUT)
    evaluator = Evaluator(store, engine.dims, context.device, micro, pad_id, objective)
    measured = evaluator.run(learner.module)
    assert measured is not None, "nobody asks this evaluation to stop"
    found["eval_loss"] = measured.loss
    return found


def objective_of(bench: Bench, config: RunConfig, store: Store, learner: Learner) -> Objective:
    """Returns the run's objective; one of preferences knows the reference's log-probabilities, as the plain loop has them."""
    if config.objective.name in LIKELIHOOD:
        return learner.objective
    known = np.load(bench.references, allow_pickle=False)
    return make_objective(config, learner.router, Documents.of(store, known[store.document_row - 1]))


def spoiled_step(learner: Learner, window: list[Batch], objective: Objective, spoiled: Objective) -> dict[str, Any]:
    """Takes a step with `spoiled`, which is no number on the first rank; returns what it claims and moved."""
    # Before the window is looked at: a forward pass without a backward one leaves weights gathered under FSDP2.
    before = digests(learner, with_optimizer=True)
    look_at_window(objective, learner.module, window)
    outcome = train_step(learner.engine, learner.module, spoiled, window, stop=False)
    return {"applied": outcome.applied, "moved": _changed(before, digests(learner, with_optimizer=True))}


class _NoNumber(torch.autograd.Function):
    """The identity whose gradient is not a number."""

    @staticmethod
    def forward(_: Any, scores: Tensor) -> Tensor:
        return scores.view_as(scores)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * float("nan")


@dataclass(frozen=True, slots=True)
class Spoiled:
    """An objective whose loss, or whose gradient, is not a number."""

    objective: Objective
    in_loss: bool

    def units(self, batch: Batch) -> dict[str, int]:
        return self.objective.units(batch)

    def loss(self, scores: Tensor, batch: Batch) -> tuple[Term, ...]:
        spoiled: Tensor = scores * float("nan") if self.in_loss else _NoNumber.apply(scores)  # type: ignore[no-untyped-call]
        return self.objective.loss(spoiled, batch)

    def measure(self, scores: Tensor, batch: Batch) -> Measured:
        return self.objective.measure(scores, batch)


def set_dropout(model: nn.Module, share: float) -> None:
    """Sets every dropout of the model, that of attention too."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = share
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", share)  # noqa: B010 - a module's attribute, to the type checker a tensor


def digests(learner: Learner, *, with_optimizer: bool = False) -> dict[str, str]:
    """Returns a hash of this rank's part of each weight, trained or frozen, and of optimizer state when it is there."""
    found = {name: _digest([_local(parameter)]) for name, parameter in learner.model.named_parameters()}
    if with_optimizer:
        for key, shards in learner.engine.state().items():
            # A weight as the engine updates it, which may be a copy in fp32, and as the model has it: one name.
            name = key.removeprefix("model.")
            found[name] = found.get(name, "") + _digest(shard.tensor for shard in shards)
    return found


def _local(parameter: nn.Parameter) -> Tensor:
    if hasattr(parameter, "ds_tensor"):
        part: Tensor = parameter.ds_tensor
        return part
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter.detach()


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().contiguous().reshape(-1).cpu()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _adapter(bench: Bench) -> Any:
    """Returns the adapter with dropout, so that its layers are there: it is 0 while training, one half in evaluation."""
    adapter = copy.deepcopy(bench.config.adapter)
    if adapter.name != "none":
        adapter.dropout = 0.0 if bench.is_mixture else DROPOUT  # peft has none for experts held as one tensor
    return adapter


def _optimizer(bench: Bench, name: str, settings: Settings) -> Any:
    """Returns the user's optimizer section with this name and rate, and with decay, so that it is seen where it acts."""
    section = copy.deepcopy(bench.config.optimizer)
    section.name, section.lr = name, settings.rates[name]
    section.weight_decay = max(WEIGHT_DECAY, section.weight_decay)
    return section


def _inputs(bench: Bench, config: RunConfig, store: Store) -> Inputs:
    prepared = Prepared(store, None, Account(), store.fingerprint, bench.folder, [], {})
    plan = Plan(bench.steps, bench.steps, False, bench.steps, 0)
    eos = bench.tokenizer.eos_token_id
    return Inputs(bench.tokenizer, bench.tokenizer_path, prepared, plan, _pad_id(bench), [] if eos is None else [eos])


def _pad_id(bench: Bench) -> int:
    tokenizer = bench.tokenizer
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(found or 0)


def _use_threads(world: int) -> None:
    """Shares the cores among the ranks, unless the user has decided."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
