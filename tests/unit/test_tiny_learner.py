"""`aisc train` learns a language: on real Cantonese talk a model of under a million weights beats the unigram baseline.

A model that only learns how frequent each token is cannot pass: what it can reach at best is the baseline itself.
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from cli.main import main
from configs.runfolder import read_metrics
from data_pipelines.corpora.hkcancor import read_turns
from data_pipelines.corpora.packages import fetch
from data_pipelines.index import Store

ROOT = Path(__file__).parents[2]
HELD_OUT_EVERY = 7
STEPS = 50
VOCABULARY = 2048
# Measured: 6.041 by frequencies, 5.362 by the model. Less than this would be luck.
MARGIN = 0.3

RUN = """
model:
  tokenizer: {folder}/tokenizer
  random_weights: true
  arch:
    model_type: llama
    vocab_size: {vocabulary}
    hidden_size: 128
    intermediate_size: 384
    num_hidden_layers: 3
    num_attention_heads: 4
    num_key_value_heads: 2
    max_position_embeddings: 256
    tie_word_embeddings: true
data:
  train: {folder}/train.jsonl
  validation: {folder}/held-out.jsonl
  sequence_length: 128
  overlength: split
  store: {folder}/stores
  workers: 1
objective: cpt
training: {{duration: {steps} steps, global_batch_size: 8, precision: fp32}}
optimizer: {{lr: 3e-3}}
lr_scheduler: {{name: constant, warmup: 3 steps}}
checkpoint: {{every: end}}
evaluation: {{every: end}}
run: {{dir: {folder}/runs}}
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One torch thread: two that wait for each other take three times the CPU time where other work runs too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Gives pytest its signal handlers back, which a run replaces."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def write_corpus(folder: Path) -> list[str]:
    """Writes conversations as plain texts, every seventh held out; returns the texts of the others."""
    source = fetch("pycantonese", ROOT / ".cache" / "packages") / "pycantonese" / "data" / "hkcancor"
    parts: dict[str, list[str]] = {"train": [], "held-out": []}
    for number, path in enumerate(sorted(source.glob("*.cha"))):
        text = "\n".join(f"{speaker[-1]}：{words}" for speaker, words in read_turns(path))
        parts["train" if number % HELD_OUT_EVERY else "held-out"].append(text)
    for name, texts in parts.items():
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return parts["train"]


def write_tokenizer(folder: Path, texts: list[str]) -> None:
    """Trains a byte-level BPE on `texts` and writes it as a tokenizer folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def unigram_loss(train: Store, held_out: Store) -> float:
    """Returns the mean -log p of the held-out targets (nats) under the frequencies of the training part, plus one."""
    counts = np.bincount(train.ids, minlength=VOCABULARY) + 1.0
    return float(-np.log(counts / counts.sum())[held_out.ids[held_out.mask]].mean())


@pytest.mark.usefixtures("one_thread", "own_signals")
def test_fifty_steps_beat_the_unigram_baseline(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer", write_corpus(tmp_path))
    settings = tmp_path / "learner.yaml"
    settings.write_text(RUN.format(folder=tmp_path, vocabulary=VOCABULARY, steps=STEPS))
    assert main(["train", str(settings)]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    (prepared,) = (tmp_path / "stores").glob("*/train")
    baseline = unigram_loss(Store(prepared), Store(prepared.parent / "validation"))
    evaluated = {line["step"]: line["eval_loss"] for line in read_metrics(run) if "eval_loss" in line}
    assert evaluated.keys() == {0, STEPS}
    assert evaluated[0] == pytest.approx(math.log(VOCABULARY), abs=0.1)
    assert evaluated[STEPS] < baseline - MARGIN < evaluated[0]
    weights = load_file(run / "model" / "model.safetensors")
    assert sum(tensor.size for tensor in weights.values()) < 1_000_000
    print(f"unigram {baseline:.3f}, held-out {evaluated[0]:.3f} -> {evaluated[STEPS]:.3f}")
