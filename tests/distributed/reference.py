"""Two other ways to train on the same tokens: a plain loop that knows nothing of this project, and transformers.Trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.schema import AdapterSection, OptimizerSection
from train.prove import reference
from train.prove.reference import Curve


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained and how; learning rate constant, betas 0.9 and 0.95, decay of matrices only."""

    model: Path
    store: Path
    optimizer: str
    lr: float
    weight_decay: float
    max_grad_norm: float


def read_documents(store: Path, rows: Sequence[int]) -> list[list[int]]:
    """Returns the token ids of every document in `rows` of a store."""
    ids = np.load(store / "ids.npy")
    offsets, row_offsets = np.load(store / "document_offsets.npy"), np.load(store / "row_offsets.npy")
    numbers = [n for row in rows for n in range(row_offsets[row], row_offsets[row + 1])]
    return [ids[offsets[n] : offsets[n + 1]].tolist() for n in numbers]


def label(ids: Sequence[int], header: Sequence[int], stop: int) -> list[int]:
    """Returns the labels of a chat, found in its tokens alone: behind each `header`, up to and with `stop`; else -100."""
    labels = [-100] * len(ids)
    learning = False
    for i, token in enumerate(ids):
        if learning:
            labels[i] = token
            learning = token != stop
        elif list(ids[i + 1 - len(header) : i + 1]) == list(header):
            learning = True
    return labels


def train_plainly(recipe: Recipe, steps: list[list[int]], header: list[int], stop: int) -> Curve:
    """Returns loss and gradient norm of each step on the rows `steps[i]`, by the loop that `aisc prove` compares with."""
    model = reference.load_plainly(recipe.model, AdapterSection(), seed=0, device=torch.device("cpu"))
    section = OptimizerSection(name=recipe.optimizer, weight_decay=recipe.weight_decay)
    optimizer = reference.plain_optimizer(model, section, recipe.lr)
    documents = [
        [reference.Labelled(ids, label(ids, header, stop)) for ids in read_documents(recipe.store, rows)] for rows in steps
    ]
    return reference.train_plainly(model, optimizer, documents, recipe.max_grad_norm)


def train_by_trainer(recipe: Recipe, steps: list[list[int]], pad: int, accumulate: int) -> Curve:
    """Returns loss and gradient norm of each step as `transformers.Trainer` logs them, fed our batches.

    A global batch comes as `accumulate` micro-batches of our collator. Trainer's labels are ours: not shifted, -100
    where nothing is learned; documents are kept apart by `position_ids` without attention mask or cache.
    """
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    from data_pipelines.collate import collate
    from data_pipelines.index import Store

    store = Store(recipe.store)
    items: list[dict[str, Any]] = []
    for rows in steps:
        for part in np.array_split(np.array(rows), accumulate):
            batch = collate(store, part, pad)
            items.append({"input_ids": batch.input_ids, "labels": batch.labels, "position_ids": batch.position_ids})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=len(steps),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=accumulate,
            train_sampling_strategy="sequential",
            optim="adamw_torch" if recipe.optimizer == "adamw" else "sgd",
            learning_rate=recipe.lr,
            weight_decay=recipe.weight_decay,
            adam_beta2=0.95,
            max_grad_norm=recipe.max_grad_norm,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        model = AutoModelForCausalLM.from_pretrained(recipe.model, dtype=torch.float32, attn_implementation="sdpa")
        trainer = Trainer(model=model, args=arguments, train_dataset=items, data_collator=lambda chosen: chosen[0])
        # Its own norm is torch's in fp32, 1e-5 off on a CPU; everything else stays as it is.
        trainer.accelerator.clip_grad_norm_ = lambda parameters, max_norm, **_: torch.tensor(reference.clip(list(parameters), max_norm))
        trainer.train()
    logged = [line for line in trainer.state.log_history if "loss" in line]
    return {key: [float(line[key]) for line in logged] for key in ("loss", "grad_norm")}
