"""What the output head costs when only labelled positions go through it.    python -m benchmarks.labelled_positions [--quick]

One optimizer step on the same real chats (the Hong Kong Cantonese Corpus, assistant-only labels, SmolLM2-135M's shape with
4 layers, random weights), four ways, in turn, in one process with one torch thread, CPU time:

- labelled: packed rows, only labelled positions through the head, in chunks (what `aisc train` does);
- packed: the same rows and the same attention, all logits;
- packed, mask: the same rows, all logits, attention through transformers' own mask from `position_ids`;
- padded: a row per chat, padded to the longest, all logits, transformers' usual arrangement.

Every way sums the loss over the labels and divides by their number, so the four losses are one number; checked to 1e-5.

Predicted: 0.67 of padded, 0.80 of packed, from a head that is 28 of 42 M parameters and sees 37 % of the positions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.evidence import record
from benchmarks.screen import show, verdict
from configs.schema import DataSection, ModelSection
from data_pipelines.build import prepare
from data_pipelines.collate import IGNORED, Batch, collate
from data_pipelines.corpora import hkcancor
from train.attention import choose, model_inputs
from train.models import load_model
from train.scores import Scores

TOKENIZER = Path(".cache/demo/smollm2")
CORPUS = Path(".cache/demo/hkcancor")
SHAPE = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
PREDICTION = {"to_padded": 0.75, "to_packed": 0.85}
COVERS = [
    "benchmarks/labelled_positions.py",
    "data_pipelines/collate.py",
    "train/attention.py",
    "train/scores.py",
]
Loss = Callable[[], Tensor]


def packed_batches(rows: int, count: int, sequence_length: int) -> list[Batch]:
    """Returns `count` batches of `rows` packed rows of the corpus."""
    if not (CORPUS / "about.json").is_file():
        hkcancor.build(CORPUS, TOKENIZER, Path(".cache/packages"))
    section = DataSection(train=str(CORPUS / "train.jsonl"), validation="none", sequence_length=sequence_length)
    store = prepare(section, "sft", str(TOKENIZER), seed=1).train
    # The store is in packing order, longest documents first: a random choice of rows is like the whole.
    chosen = np.random.default_rng(0).permutation(store.num_rows)[: rows * count].reshape(count, rows)
    return [collate(store, np.sort(some), 0) for some in chosen]


def padded(batch: Batch) -> dict[str, Tensor]:
    """Returns the documents of a packed batch as one row each: input_ids, attention_mask, labels `[D, longest]`."""
    bounds = batch.cu_seqlens.tolist()
    spans = [(bounds[i], bounds[i + 1]) for i, document in enumerate(batch.document_ids.tolist()) if document >= 0]
    longest = max(end - begin for begin, end in spans)
    ids = torch.zeros(len(spans), longest, dtype=torch.int64)
    labels = torch.full((len(spans), longest), IGNORED)
    mask = torch.zeros(len(spans), longest, dtype=torch.int64)
    for row, (begin, end) in enumerate(spans):
        size = end - begin
        ids[row, :size] = batch.input_ids.reshape(-1)[begin:end]
        labels[row, :size] = batch.labels.reshape(-1)[begin:end]
        mask[row, :size] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def mean_loss(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Returns the sum over labels of -log p, over `count`; logits `[B, T, V]`, labels `[B, T]` not shifted."""
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    return F.cross_entropy(flat, labels[:, 1:].reshape(-1), ignore_index=IGNORED, reduction="sum") / count


class Way:
    """One arrangement: a model of its own, its optimizer, and how it turns a batch into a loss."""

    def __init__(self, attention: str, loss: Callable[[Any, Batch], Tensor]) -> None:
        section = ModelSection(arch=dict(SHAPE), random_weights=True)
        cpu = torch.device("cpu")
        self.model: nn.Module = load_model(section, dtype=torch.float32, attention_name=attention, device=cpu, seed=0)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.loss = loss
        self.subject: Any = self.model

    def step(self, batch: Batch) -> tuple[float, float]:
        """Makes one update; returns (loss before it, CPU seconds)."""
        began = time.process_time()
        loss = self.loss(self.subject, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item(), time.process_time() - began


def ways() -> dict[str, Way]:
    """Returns the four arrangements, equal weights in each."""
    varlen, _ = choose("auto", torch.device("cpu"))

    def all_logits(attention: str) -> Callable[[Any, Batch], Tensor]:
        def loss(model: Any, batch: Batch) -> Tensor:
            logits = model(**model_inputs(batch, attention)).logits
            return mean_loss(logits.reshape(*batch.labels.shape, -1), batch.labels, batch.num_targets)

        return loss

    def by_row(model: Any, batch: Batch) -> Tensor:
        rows = padded(batch)
        logits = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], use_cache=False).logits
        return mean_loss(logits, rows["labels"], batch.num_targets)

    made = {
        "labelled": Way(varlen, lambda scores, batch: -scores(batch).sum() / batch.num_targets),
        "packed": Way(varlen, all_logits(varlen)),
        "packed, mask": Way("sdpa", all_logits("sdpa")),
        "padded": Way("sdpa", by_row),
    }
    made["labelled"].subject = Scores(made["labelled"].model, precision="fp32")
    return made


def measure(rows: int, rounds: int, sequence_length: int) -> dict[str, Any]:
    """Returns prediction, measurements and ratios: median CPU seconds of a step over `rounds` batches, in turn."""
    torch.set_num_threads(1)
    batches = packed_batches(rows, rounds + 1, sequence_length)
    made = ways()
    seconds: dict[str, list[float]] = {name: [] for name in made}
    worst = 0.0
    for number, batch in enumerate(batches):
        losses = {}
        for name, way in made.items():
            losses[name], spent = way.step(batch)
            if number:  # the first round warms up
                seconds[name].append(spent)
        if number == 0:
            worst = max(abs(loss / losses["padded"] - 1) for loss in losses.values())
    assert worst <= 1e-5, f"losses differ by {worst:.1e}"
    median = {name: float(np.median(spent)) for name, spent in seconds.items()}
    ratio = {f"to_{name}": median["labelled"] / median[name] for name in made if name != "labelled"}
    holds = ratio["to_padded"] <= PREDICTION["to_padded"] and ratio["to_packed"] <= PREDICTION["to_packed"]
    labelled = sum(batch.num_targets for batch in batches) / sum(batch.labels.numel() for batch in batches)
    figures = f"{ratio['to_padded']:.2f}x of padded rows, {ratio['to_packed']:.2f}x of packed rows with all logits"
    return {
        "result": verdict(holds, figures),
        "labelled_share": labelled,
        "largest_difference_of_losses": worst,
        "prediction": PREDICTION,
        "measured": [{"name": name, "cpu_s": value, "to_labelled": value / median["labelled"]} for name, value in median.items()],
        "ratio": ratio,
    }


def main() -> None:
    """Runs the benchmark and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small rounds, nothing recorded")
    arguments = parser.parse_args()
    result = measure(1, 2, 512) if arguments.quick else measure(2, 4, 2048)
    show("labelled positions", result)
    if not arguments.quick:
        record("labelled_positions", covers=COVERS, result=result.pop("result"), counts=result, seed=0)


if __name__ == "__main__":
    main()
