"""A few steps of every preference objective in every arrangement of the same pairs, and KTO with a known mistake.

    python -m tests.distributed.preference

Prints one line of JSON: for each arrangement, objective and optimizer the curves of loss and gradient norm, or the error.
Every step takes all the pairs, so that packing, ranks and micro-batches are the same mathematics.
"""

from __future__ import annotations

import importlib
import json
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import EngineSection, ObjectiveSection, OptimizerSection, TrainingSection
from data_pipelines.collate import collate
from data_pipelines.index import Store
from data_pipelines.order import rank_slice
from data_pipelines.roles import Role
from data_pipelines.store import Document
from tests.small_store import write_store
from train.prove.forked import RanksFailed, run_ranks

STEPS = 3
PAIRS = 10
RATES = {"sgd": 0.1, "adamw": 1e-3}
SHAPE = {
    "vocab_size": 500,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
}
OBJECTIVES = {
    "dpo": {"beta": 0.3},
    "dpo robust": {"beta": 0.3, "loss": "robust", "label_smoothing": 0.1, "length_normalised": True, "nll_weight": 0.5},
    "dpo ipo": {"beta": 0.3, "loss": "ipo", "length_normalised": True},
    "kto": {"beta": 0.2, "undesirable_weight": 1.3},
    "orpo": {},
    "simpo": {"beta": 2.0},
    "reward": {},
}


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How the same pairs are cut up; `micro` is rows at once, 0 for all."""

    engine: str = "ddp"
    world: int = 1
    micro: int = 0
    packing: bool = True
    only: tuple[str, ...] = tuple(OBJECTIVES)
    optimizers: tuple[str, ...] = tuple(RATES)


ARRANGEMENTS = {
    "one process": Arrangement(),
    "accumulation": Arrangement(micro=1),
    "one pair a row": Arrangement(micro=3, packing=False),
    "ddp x2": Arrangement(world=2, micro=1),
    "ddp x3, one pair a row": Arrangement(world=3, micro=1, packing=False, only=("dpo", "kto")),
    # DeepSpeed is set up once in a process.
    "zero2 x2, dpo": Arrangement("zero2", 2, 1, only=("dpo",), optimizers=("adamw",)),
    "zero2 x2, kto": Arrangement("zero2", 2, 1, only=("kto",), optimizers=("adamw",)),
    "zero2 x2, reward": Arrangement("zero2", 2, 1, only=("reward",), optimizers=("adamw",)),
    "fsdp2 x2": Arrangement("fsdp2", 2, 1, only=("dpo", "kto", "orpo", "simpo", "reward"), optimizers=("adamw",)),
}
MUTANT = Arrangement(micro=1, only=("kto",))


def pairs(*, last_only: bool) -> list[list[Document]]:
    """Returns items of two documents: a prompt with two answers of different lengths, of which the answers are labelled.

    Args:
        last_only: label the last token alone, as for rewards.
    """
    rng = np.random.default_rng(5)
    items = []
    for number in range(PAIRS):
        prompt = rng.integers(1, SHAPE["vocab_size"], rng.integers(2, 9))
        item = []
        for length in rng.integers(1, 14, 2):
            ids = np.concatenate([prompt, rng.integers(1, SHAPE["vocab_size"], length)]).astype(np.uint32)
            mask = np.arange(len(ids)) >= (len(ids) - 1 if last_only else len(prompt))
            item.append(Document(ids, mask, source=number % 2, group=number, row=number + 1))
        items.append(item)
    return items


def columns(store: Store, objective: str) -> Any:
    """Returns roles, margins and reference log-probabilities of the documents, whatever the packing's order."""
    from train.objectives import Documents

    rng = np.random.default_rng(7)
    noise, margin = rng.normal(0, 1.5, (PAIRS, 2)), rng.uniform(0, 1, PAIRS)
    is_second = np.zeros(store.num_documents, dtype=np.int64)
    is_second[1::2] = 1  # rows hold whole items
    item = store.document_row - 1
    first = np.where(item % 3 == 0, Role.UNDESIRABLE, Role.DESIRABLE) if objective == "kto" else np.int64(Role.CHOSEN)
    second = Role.MISMATCHED if objective == "kto" else Role.REJECTED
    return Documents(
        np.where(is_second, second, first).astype(np.uint8),
        np.where(is_second, 0, margin[item]).astype(np.float32),
        -6.2 * store.document_targets + noise[item, is_second],
    )


def per_micro_batch() -> None:
    """The mistake: KTO's baseline is the mean of each micro-batch alone."""
    from torch import Tensor, nn

    from train.objectives.kto import Kto

    loss, stats = Kto.loss, Kto.window_stats

    class Known(nn.Module):
        def __init__(self, scores: Tensor) -> None:
            super().__init__()
            self.scores = scores

        def forward(self, batch: Any) -> Tensor:
            return self.scores

    def own(self: Kto, scores: Tensor, batch: Any) -> Any:
        stats(self, Known(scores.detach()), [batch])
        return loss(self, scores, batch)

    Kto.loss = own  # type: ignore[method-assign]
    Kto.window_stats = lambda self, module, batches: None  # type: ignore[method-assign]


def curves(folder: str, arrangement: dict[str, Any], mutant: bool) -> dict[str, dict[str, list[float]]]:
    """Returns this rank's curves by `objective/optimizer`."""
    from train import distributed

    if mutant:
        per_micro_batch()
    plan = Arrangement(**arrangement)
    distributed.start("gloo", "cpu", needs_group=plan.engine != "ddp")
    found = {
        f"{name}/{optimizer}": curve(Path(folder), plan, name, optimizer)
        for name in plan.only
        for optimizer in plan.optimizers
    }
    distributed.shutdown()
    return found


def curve(folder: Path, plan: Arrangement, name: str, optimizer: str) -> dict[str, list[float]]:
    """Makes the updates of one objective and returns loss and gradient norm of each."""
    import torch
    import torch.distributed as dist

    from train import attention
    from train.distributed import Context
    from train.engines import build_engine
    from train.objectives import build_objective, look_at_window
    from train.optimizer import build_optimizer
    from train.step import train_step

    world = dist.get_world_size() if dist.is_initialized() else 1
    context = Context(dist.get_rank() if world > 1 else 0, 0, world, torch.device("cpu"))
    attention.register()
    training = TrainingSection(precision="fp32", micro_batch_size=max(1, plan.micro), max_grad_norm=0.0)
    scores = make_scores(name)
    engine = build_engine(EngineSection(name=plan.engine, processes=world, backend="gloo"), training, context)
    values = full_weights(scores)
    section = OptimizerSection(name=optimizer, lr=RATES[optimizer])
    module = engine.prepare(scores, lambda named: build_optimizer(section, named, RATES[optimizer]))
    if engine.reads_weights:
        engine.load_weights(values)
    store = Store(folder / f"{'last' if name == 'reward' else 'answers'}-{plan.packing}")
    made = ObjectiveSection(name=name.split(maxsplit=1)[0], **OBJECTIVES[name])
    objective = build_objective(made, columns(store, made.name))
    outcomes = []
    for _ in range(STEPS):
        rows = np.arange(store.num_rows)
        parts = rank_slice(rows, engine.dims.dp_rank, engine.dims.dp_size, plan.micro or store.num_rows)
        window = [collate(store, part, 0) for part in parts]
        look_at_window(objective, module, window)
        outcomes.append(train_step(engine, module, objective, window, stop=False))
    return {"loss": [o.loss for o in outcomes], "grad_norm": [o.grad_norm for o in outcomes]}


def stopped(folder: str) -> list[int]:
    """Returns how many documents this rank knows after a pass of the reference that only rank 1 wants to stop, and after the rest."""
    import torch
    import torch.distributed as dist

    from train import attention, distributed
    from train.distributed import Dims
    from train.evaluate import Evaluator
    from train.reference_pass import Column, advance

    distributed.start("gloo", "cpu")
    attention.register()
    rank = dist.get_rank()
    store = Store(Path(folder) / "answers-False")
    evaluator = Evaluator(store, Dims(rank, 2, 2), torch.device("cpu"), 1, 0)
    asked = iter((False, rank == 1))
    begun = advance(make_scores("dpo"), evaluator, Column.empty(store), lambda: next(asked))
    whole = advance(make_scores("dpo"), evaluator, begun)
    distributed.shutdown()
    return [int(begun.done.sum()), int(whole.done.sum())]


def make_scores(name: str) -> Any:
    """Returns the scores of a small model, the same on every rank."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from train import attention
    from train.reward_scores import RewardScores, add_head
    from train.scores import Scores

    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SHAPE, num_labels=1)
    kind = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation=attention.VARLEN_CPU).train()
    if name == "reward":
        add_head(model, None, seed=1)
    return (RewardScores if name == "reward" else Scores)(model, precision="fp32")


def full_weights(scores: Any) -> Any:
    """Returns the weights as an engine that shares them out reads them."""
    values = {name: parameter.detach().clone() for name, parameter in scores.model.named_parameters()}

    class Reader:
        def names(self) -> Any:
            return values.keys()

        def shape(self, name: str) -> Any:
            return tuple(values[name].shape)

        def read(self, name: str) -> Any:
            return values[name]

        def read_flat(self, name: str, start: int, stop: int) -> Any:
            return values[name].reshape(-1)[start:stop]

    return Reader()


def main() -> None:
    """Runs everything and prints it."""
    for name in ("accelerate", "deepspeed", "transformers.models.llama.modeling_llama", "train.engines.fsdp2", "train.step"):
        importlib.import_module(name)  # once, before the ranks are forked
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for packing in (True, False):
            for what in ("answers", "last"):
                items = pairs(last_only=what == "last")
                write_store(folder / f"{what}-{packing}", items, sequence_length=96, packing=packing)
        for label, plan in {**ARRANGEMENTS, "mutant": MUTANT}.items():
            values = {key: getattr(plan, key) for key in plan.__dataclass_fields__}
            try:
                found[label] = run_ranks(plan.world, curves, str(folder), values, label == "mutant", timeout_s=120)[0]
            except RanksFailed as error:
                found[label] = {"error": str(error)}
        found["stopped"] = run_ranks(2, stopped, str(folder), timeout_s=120)
        found["rows"] = {str(packing): Store(folder / f"answers-{packing}").num_rows for packing in (True, False)}
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found["cpu_s"] = round(sum(usage.ru_utime + usage.ru_stime for usage in spent), 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
