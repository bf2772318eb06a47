"""Ten steps of `aisc train` in every arrangement, beside a plain loop and transformers.Trainer.

    python -m tests.distributed.parity

Prints one line of JSON: every curve, or the error of what could not run. Two sets of runs:

- "whole": each step is the whole data, so that one document a row, packed rows, any micro-batch and any number of
  processes are the same mathematics; compared with a plain loop over single documents.
- "batches": a shuffled order of small global batches; compared with Trainer and the plain loop on the same rows.
"""

from __future__ import annotations

import importlib
import itertools
import json
import random
import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from configs.runfolder import read_json, read_metrics
from tests.distributed.mutants import MUTANTS
from tests.distributed.reference import Curve, Recipe, train_by_trainer, train_plainly
from tests.kills.lab import make_tokenizer, only_run
from train.prove.forked import RanksFailed, run_ranks

ROOT = Path(__file__).parents[2]
MODELS = ("tiny_llama", "tiny_qwen3", "tiny_deepseek_v3")
# At twice AdamW's rate the tenth step of tiny_qwen3 is so ill-conditioned that the plain loop differs from itself by
# 1e-5 when it takes the documents in another order; "plain loop, reversed" watches that it does not here.
RATES = {"sgd": 0.3, "adamw": 1e-3}
WEIGHT_DECAY = 0.1
# Below the norm of the first steps and above that of later ones: clipped and unclipped updates are both in a curve.
MAX_GRAD_NORM = 1.0
STEPS = 10
SEQUENCE_LENGTH = 160
CHATS = 24
BATCH = 4
SEED = 1
BOUND = 1e-5


@dataclass(frozen=True, slots=True)
class Variant:
    """One arrangement of the same ten steps. `micro` is rows at once, 0 for the whole global batch."""

    world: int
    micro: int
    packing: bool = True
    attention: str = "auto"


# Ten packed rows: four micro-batches of three, and four of one row on three processes, come with two empty rows.
VARIANTS = {
    "one process": Variant(1, 0),
    "accumulation x4": Variant(1, 3),
    "two processes": Variant(2, 2),
    "three processes": Variant(3, 1),
    "one document a row": Variant(1, 0, packing=False),
    "sdpa with a mask": Variant(1, 4, attention="sdpa"),
}
# Where each mistake can be seen: with one micro-batch a mean of means is the mean, varlen kernels need no mask.
MUTANT_VARIANTS = (
    ("mean_of_means", "accumulation x4"),
    ("mean_of_means", "two processes"),
    ("use_cache", "sdpa with a mask"),
    ("accumulation_divided_twice", "accumulation x4"),
    ("label_shifted_by_one", "one process"),
    ("stop_token_unlearned", "one process"),
)
GUARDED = (("use_cache", "sdpa with a mask"),)
STACK = (
    "accelerate",
    "deepspeed",  # save_pretrained asks for it
    "matplotlib.backends.backend_svg",
    "peft",
    "transformers.trainer",
    *(f"transformers.models.{name}.modeling_{name}" for name in ("deepseek_v3", "llama", "qwen3")),
    "cli.prepare",
    "cli.train",
    "data_pipelines.build",
    "train.finish",
    "train.run",
)


def worst_difference(one: Curve, other: Curve) -> float:
    """Returns the largest relative difference of any loss or gradient norm; infinite if the curves are not alike."""
    worst = 0.0
    for key in ("loss", "grad_norm"):
        if len(one[key]) != STEPS or len(other[key]) != STEPS:
            return float("inf")
        worst = max(worst, *(abs(a / b - 1) for a, b in zip(one[key], other[key], strict=True)))
    return worst


def agree(one: Curve, other: Curve) -> bool:
    """True when ten losses and ten gradient norms are equal within the bound."""
    return worst_difference(one, other) <= BOUND


def write_chats(path: Path) -> list[str]:
    """Writes chats of one to three exchanges of very different length, and returns their texts."""
    chance = random.Random(0)
    texts = []
    with path.open("w") as file:
        for _ in range(CHATS):
            messages = []
            for _ in range(chance.choice([1, 1, 2, 3])):
                a, b = chance.randrange(100), chance.randrange(100)
                answer = f"{a} and {b} make {a + b}. " * chance.choice([1, 1, 2, 4])
                messages.append({"role": "user", "content": f"What is {a} and {b}?"})
                messages.append({"role": "assistant", "content": answer.strip()})
            file.write(json.dumps({"messages": messages}) + "\n")
            texts += [message["content"] for message in messages]
    return texts


def write_model(name: str, folder: Path) -> int:
    """Writes random weights of the preset `name` as a model folder; returns the number of parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    arch = yaml.safe_load((ROOT / "configs" / "model" / f"{name}.yaml").read_text())["arch"]
    config = AutoConfig.for_model(arch.pop("model_type"), **arch)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def command(arguments: list[str], mutant: str | None) -> None:
    """Runs `aisc` in this rank, with a mistake in its code when `mutant` names one."""
    from cli.main import main

    if mutant is not None:
        MUTANTS[mutant]()
    assert main(arguments) == 0


class Bench:
    """Data, tokenizer and models in `folder`; runs of `aisc train` on forked ranks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        texts = write_chats(folder / "chats.jsonl")
        make_tokenizer(folder / "tokenizer", texts)
        import_stack()
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        self.stop = tokenizer.token_to_id("<|im_end|>")
        self.pad = tokenizer.token_to_id("<|endoftext|>")
        self.header = tokenizer.encode("<|im_start|>assistant\n").ids
        for model in MODELS:
            run_ranks(1, write_model, model, folder / model)
        self.rows = {packing: self._prepare(packing) for packing in (True, False)}

    def _options(self, packing: bool, stores: str) -> list[str]:
        return [
            f"model.tokenizer={self.folder / 'tokenizer'}",
            f"data={self.folder / 'chats.jsonl'}",
            f"data.store={self.folder / stores}",
            f"data.sequence_length={SEQUENCE_LENGTH}",
            f"data.packing={str(packing).lower()}",
            "data.validation=none",
            "data.workers=1",
            f"training.seed={SEED}",
        ]

    def _prepare(self, packing: bool) -> int:
        """Builds the store and returns its rows."""
        model = f"model={self.folder / MODELS[0]}"
        run_ranks(1, command, ["prepare", model, *self._options(packing, f"stores-{packing}")], None)
        return len(np.load(self.store(packing) / "row_offsets.npy")) - 1

    def store(self, packing: bool = True) -> Path:
        """Returns the prepared training part."""
        (found,) = (self.folder / f"stores-{packing}").glob("*/train")
        return found

    def recipe(self, model: str, optimizer: str) -> Recipe:
        """Returns what the references train."""
        return Recipe(self.folder / model, self.store(), optimizer, RATES[optimizer], WEIGHT_DECAY, MAX_GRAD_NORM)

    def train(
        self, model: str, optimizer: str, variant: Variant, batch: int, mutant: str | None = None, guard: bool = False
    ) -> Curve:
        """Returns loss and gradient norm of each step, read from the run's metrics.jsonl."""
        stores = f"stores-{mutant}" if mutant == "stop_token_unlearned" else f"stores-{variant.packing}"
        with tempfile.TemporaryDirectory(dir=self.folder) as runs:
            arguments = [
                "train",
                f"model={self.folder / model}",
                *self._options(variant.packing, stores),
                f"run.dir={runs}",
                f"model.attention={variant.attention}",
                f"training.global_batch_size={batch}",
                f"training.micro_batch_size={variant.micro or batch}",
                f"training.duration={STEPS} steps",
                "training.min_steps=0",
                "training.precision=fp32",
                f"training.max_grad_norm={MAX_GRAD_NORM}",
                f"optimizer={{name: {optimizer}, lr: {RATES[optimizer]}, weight_decay: {WEIGHT_DECAY}}}",
                "lr_scheduler={name: constant, warmup: 0}",
                "checkpoint.every=end",
                "evaluation.every=end",
                f"guard.reference_check={str(guard).lower()}",
            ]
            run_ranks(variant.world, command, arguments, mutant)
            lines = [line for line in read_metrics(only_run(Path(runs)).path) if "loss" in line]
        return {key: [line[key] for line in lines] for key in ("loss", "grad_norm")}

    def plain(self, model: str, optimizer: str, steps: list[list[int]]) -> Curve:
        """Returns the curve of the plain loop."""
        curve: Curve = run_ranks(1, train_plainly, self.recipe(model, optimizer), steps, self.header, self.stop)[0]
        return curve

    def trainer(self, model: str, optimizer: str, steps: list[list[int]], accumulate: int) -> Curve:
        """Returns the curve of transformers.Trainer."""
        curve: Curve = run_ranks(1, train_by_trainer, self.recipe(model, optimizer), steps, self.pad, accumulate)[0]
        return curve

    def ordered(self) -> list[list[int]]:
        """Returns the rows of the first global batches."""
        from data_pipelines.order import Order

        meta = read_json(self.store() / "store.json")
        assert meta is not None
        order = Order(self.rows[True], meta["fingerprint"], SEED, BATCH)
        return [order.rows(position).tolist() for position in range(STEPS)]


def import_stack() -> None:
    """Imports what the ranks use, late imports included. Nothing is computed: threads would not survive the fork."""
    import transformers

    for name in STACK:
        importlib.import_module(name)
    transformers.logging.set_verbosity_error()


def attempt(what: Callable[..., Curve], *arguments: Any, **options: Any) -> dict[str, Any]:
    """Returns the curve, or {"error": ...}: one broken case must not hide the others."""
    try:
        return what(*arguments, **options)
    except RanksFailed as error:
        return {"error": str(error)}


def scenario(folder: Path) -> dict[str, Any]:
    """Runs everything and returns the curves by set, model, optimizer and variant."""
    bench = Bench(folder)
    rows = list(range(bench.rows[True]))
    order = bench.ordered()
    found: dict[str, Any] = {"rows": bench.rows, "whole": {}, "batches": {}, "mutants": {}, "guarded": {}}
    for case in itertools.product(MODELS, RATES):
        found["whole"]["/".join(case)] = {
            **{name: attempt(bench.train, *case, v, bench.rows[v.packing]) for name, v in VARIANTS.items()},
            "plain loop": attempt(bench.plain, *case, [rows] * STEPS),
            "plain loop, reversed": attempt(bench.plain, *case, [rows[::-1]] * STEPS),
        }
        found["batches"]["/".join(case)] = {
            "aisc": attempt(bench.train, *case, Variant(1, 2), BATCH),
            "trainer": attempt(bench.trainer, *case, order, accumulate=1),
            "trainer, accumulation": attempt(bench.trainer, *case, order, accumulate=2),
            "plain loop": attempt(bench.plain, *case, order),
        }
    case = (MODELS[0], "sgd")
    for kind, pairs in (("mutants", MUTANT_VARIANTS), ("guarded", GUARDED)):
        for mutant, name in pairs:
            options = {"mutant": mutant, "guard": kind == "guarded"}
            found[kind][f"{mutant}/{name}"] = attempt(bench.train, *case, VARIANTS[name], len(rows), **options)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        result = scenario(Path(name))
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result["cpu_s"] = round(sum(usage.ru_utime + usage.ru_stime for usage in spent), 1)
    print(json.dumps(result))
