"""The same steps by TRL's trainers and by ours, on the same pairs, tokens and fp32 weights, each end to end.

    python -m tests.distributed.trl_preference

Prints one line of JSON: for each case both curves of the loss, or the error.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.schema import EngineSection, ObjectiveSection, OptimizerSection, TrainingSection
from data_pipelines.collate import collate
from data_pipelines.roles import Role
from data_pipelines.store import Document
from tests.distributed.preference import SHAPE
from tests.kills.lab import make_tokenizer
from tests.small_store import write_store
from train.distributed import Context, Dims

STEPS = 3
PAIRS = 6
RATE = 0.1
LENGTH = 256
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Case:
    """One loss as both sides name it; `pairs` is how many make a step."""

    objective: str
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    pairs: int = PAIRS
    prompt: bool = True


CASES = {
    "dpo": Case("dpo", {"beta": 0.3}, {"beta": 0.3}),
    "dpo robust": Case(
        "dpo",
        {"beta": 0.3, "loss": "robust", "label_smoothing": 0.1},
        {"beta": 0.3, "loss_type": ["robust"], "label_smoothing": 0.1},
    ),
    "dpo hinge": Case("dpo", {"beta": 0.02, "loss": "hinge"}, {"beta": 0.02, "loss_type": ["hinge"]}),
    "dpo ipo": Case(
        "dpo", {"beta": 0.3, "loss": "ipo", "length_normalised": True}, {"beta": 0.3, "loss_type": ["ipo"]}
    ),
    "dpo length-normalised": Case(
        "dpo", {"beta": 2.0, "length_normalised": True}, {"beta": 2.0, "loss_type": ["sigmoid_norm"]}
    ),
    # TRL takes the mean over the tokens of all chosen answers, the paper over each answer's: one pair is both.
    "dpo nll": Case(
        "dpo",
        {"beta": 0.3, "nll_weight": 0.7},
        {"beta": 0.3, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]},
        pairs=1,
    ),
    "kto": Case("kto", {"beta": 0.2, "undesirable_weight": 1.3}, {"beta": 0.2, "undesirable_weight": 1.3}),
    # TRL's likelihood includes the prompt: without one it is the answer's.
    "orpo": Case("orpo", {"odds_weight": 0.5}, {"beta": 0.5}, pairs=1, prompt=False),
    "simpo": Case(
        "simpo",
        {"beta": 2.0, "gamma_beta_ratio": 0.4},
        {"beta": 2.0, "loss_type": "simpo", "simpo_gamma": 0.8, "cpo_alpha": 0.0},
    ),
    "reward": Case("reward"),
}


def texts() -> list[dict[str, Any]]:
    """Returns pairs of answers of different lengths to different prompts."""
    chance = random.Random(3)
    rows = []
    for number in range(PAIRS):
        a, b = chance.randrange(100), chance.randrange(100)
        rows.append(
            {
                "prompt": f"What is {a} and {b}?\n",
                "chosen": f"{a} and {b} make {a + b}." + " Certainly so." * (number % 3),
                "rejected": f"I would say that it is {a * b}." + " Who knows?" * (number % 2),
            }
        )
    return rows


def make_model(kind: str, seed: int) -> Any:
    """Returns a small model with random weights of `seed`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    config = AutoConfig.for_model("llama", **{**SHAPE, "max_position_embeddings": LENGTH}, num_labels=1)
    auto = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():  # at transformers' own scale all answers look alike
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 3
    return model


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Returns the rows of a case in the form of its trainer."""
    rows = texts()[: case.pairs]
    if case.objective == "kto":
        return [
            {"prompt": row["prompt"], "completion": row["chosen" if number % 3 else "rejected"], "label": bool(number % 3)}
            for number, row in enumerate(rows)
        ]
    if case.objective == "reward":
        return [
            {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"], "margin": 0.2 * number}
            for number, row in enumerate(rows)
        ]
    return rows if case.prompt else [{**row, "prompt": ""} for row in rows]


def trainer_of(case: Case, folder: Path, tokenizer: Any, model: Any, reference: Any) -> Any:
    """Returns TRL's trainer."""
    from datasets import Dataset

    common = {
        "output_dir": str(folder),
        "per_device_train_batch_size": case.pairs,
        "max_steps": STEPS,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "max_length": LENGTH,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }
    kind, config = trainer_classes(case.objective)
    given = {"ref_model": reference} if case.objective in ("dpo", "kto") else {}
    return kind(
        model=model,
        args=config(**common, **case.theirs),
        train_dataset=Dataset.from_list(rows_of(case)),
        processing_class=tokenizer,
        **given,
    )


def trainer_classes(objective: str) -> tuple[Any, Any]:
    """Returns trainer and configuration of TRL 1.16."""
    import trl
    from trl.experimental import cpo, orpo

    return {
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
        "kto": (trl.KTOTrainer, trl.KTOConfig),
        "orpo": (orpo.ORPOTrainer, orpo.ORPOConfig),
        "simpo": (cpo.CPOTrainer, cpo.CPOConfig),
        "reward": (trl.RewardTrainer, trl.RewardConfig),
    }[objective]


def their_curve(trainer: Any) -> list[float]:
    """Trains and returns the losses, unrounded."""
    losses: list[float] = []
    compute: Callable[..., Any] = trainer.compute_loss

    def recorded(*arguments: Any, **options: Any) -> Any:
        found = compute(*arguments, **options)
        losses.append(float((found[0] if isinstance(found, tuple) else found).detach()))
        return found

    trainer.compute_loss = recorded
    trainer.train()
    return losses


def items_of(case: Case, dataset: Any) -> list[list[Document]]:
    """Returns the documents of the tokens that TRL made."""
    items = []
    for number, row in enumerate(dataset):
        prompt = row.get("prompt_ids", row.get("prompt_input_ids", []))
        if case.objective == "kto":
            answers = [row["completion_ids"], row["KL_completion_ids"]]
        elif case.objective in ("orpo", "simpo"):
            answers = [row[f"{which}_input_ids"][len(prompt) :] for which in ("chosen", "rejected")]
        else:
            answers = [row["chosen_ids"], row["rejected_ids"]]
        item = []
        for answer in answers:
            ids = np.array([*prompt, *answer], np.uint32)
            first = len(ids) - 1 if case.objective == "reward" else max(1, len(prompt))
            item.append(Document(ids, np.arange(len(ids)) >= first, source=0, group=number, row=number + 1))
        items.append(item)
    return items


def our_curve(case: Case, folder: Path, model: Any, reference: Any, items: list[list[Document]]) -> list[float]:
    """Makes the same updates and returns the losses."""
    from train import attention
    from train.engines import build_engine
    from train.evaluate import Evaluator
    from train.objectives import Documents, build_objective, look_at_window
    from train.optimizer import build_optimizer
    from train.reference_pass import log_probabilities
    from train.reward_scores import RewardScores
    from train.scores import Scores
    from train.step import train_step

    attention.register()
    for network in (model, reference):
        network.set_attn_implementation(attention.VARLEN_CPU)
    store = write_store(folder, items, sequence_length=LENGTH)
    labels = [row["label"] for row in rows_of(case)] if case.objective == "kto" else []
    order = store.document_row[::2] - 1
    role = np.full(store.num_documents, Role.MISMATCHED if labels else Role.REJECTED, np.uint8)
    role[::2] = [Role.DESIRABLE if labels[i] else Role.UNDESIRABLE for i in order] if labels else Role.CHOSEN
    margin = np.zeros(store.num_documents, np.float32)
    margin[::2] = 0.2 * order
    known = None
    if case.objective in ("dpo", "kto"):
        known = log_probabilities(Scores(reference, precision="fp32"), Evaluator(store, Dims(0, 1, 1), CPU, 2, 0))
    section = ObjectiveSection(name=case.objective, **case.ours)
    objective = build_objective(section, Documents(role, margin, known))
    sgd = OptimizerSection(name="sgd", lr=RATE, weight_decay=0.0)
    training = TrainingSection(precision="fp32", micro_batch_size=store.num_rows, max_grad_norm=0.0)
    engine = build_engine(EngineSection(name="ddp", processes=1, backend="gloo"), training, Context(0, 0, 1, CPU))
    scores = (RewardScores if case.objective == "reward" else Scores)(model.train(), precision="fp32")
    module = engine.prepare(scores, lambda named: build_optimizer(sgd, named, RATE))
    losses = []
    for _ in range(STEPS):
        window = [collate(store, np.arange(store.num_rows), 0)]
        look_at_window(objective, module, window)
        losses.append(train_step(engine, module, objective, window, stop=False).loss)
    return losses


def compare(case: Case, folder: Path, tokenizer: Any) -> dict[str, list[float]]:
    """Returns both curves."""
    model, reference = make_model(case.objective, 1), make_model("reference", 2)
    mine = copy.deepcopy(model)
    trainer = trainer_of(case, folder / "trl", tokenizer, model, copy.deepcopy(reference))
    items = items_of(case, trainer.train_dataset)
    return {"theirs": their_curve(trainer), "ours": our_curve(case, folder / "store", mine, reference, items)}


def main() -> None:
    """Runs everything and prints it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    from transformers import AutoTokenizer

    found: dict[str, Any] = {}
    wanted = sys.argv[1:] or list(CASES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tokenizer(folder / "tokenizer", [text for row in texts() for text in row.values()])
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        for label in wanted:
            (place := folder / label.replace(" ", "-")).mkdir()
            try:
                found[label] = compare(CASES[label], place, tokenizer)
            except Exception:
                found[label] = {"error": traceback.format_exc()[-2000:]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
