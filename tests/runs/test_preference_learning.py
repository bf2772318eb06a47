"""Every preference objective learns a rule: the same Cantonese sentence in Traditional script over Simplified script.

A model of random weights cannot tell the scripts apart; some dozens of steps must do, on sentences it has not seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from cli.main import main
from configs.runfolder import read_metrics
from data_pipelines.corpora.script_pairs import build
from data_pipelines.index import Store
from data_pipelines.roles import Role
from tests.kills.lab import TEMPLATE
from tests.unit.test_tiny_learner import one_thread, own_signals

__all__ = ["one_thread", "own_signals"]

ROOT = Path(__file__).parents[2]
PAIRS = 800
VOCABULARY = 1500
STEPS = 40
AT_LEAST = 0.9
RUN = """
model:
  tokenizer: {folder}/tokenizer
  random_weights: true
  arch:
    model_type: llama
    vocab_size: {vocabulary}
    hidden_size: 64
    intermediate_size: 128
    num_hidden_layers: 2
    num_attention_heads: 4
    num_key_value_heads: 2
    max_position_embeddings: 512
    tie_word_embeddings: true
    pad_token_id: 0
data:
  train: {folder}/{rows}/train.jsonl
  validation: {folder}/{rows}/held_out.jsonl
  sequence_length: 512
  store: {folder}/stores
  workers: 1
objective: {objective}
training: {{duration: {steps} steps, global_batch_size: {batch}, precision: fp32, seed: {seed}}}
optimizer: {{lr: {lr}}}
lr_scheduler: {{name: constant, warmup: 3 steps}}
checkpoint: {{every: end}}
evaluation: {{every: end}}
run: {{dir: {folder}/runs-{name}}}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the pairs and of a tokenizer that was trained on both scripts."""
    folder = tmp_path_factory.mktemp("scripts")
    counts = build(folder, ROOT / ".cache" / "packages", num_pairs=PAIRS)
    assert counts.train > 650 and counts.held_out > 50
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Trains a byte-level BPE on the answers of the training part."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rows = [json.loads(line) for line in (folder / "pairs" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([row[key] for row in rows for key in ("prompt", "chosen", "rejected")], trainer)
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    values = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(values))


@dataclass(frozen=True, slots=True)
class Case:
    """One objective; `batch` is rows of 512 tokens in a step, each about 12 answers, with kto half of them mismatched."""

    objective: str
    batch: int = 4
    lr: float = 3e-3


CASES = {
    "dpo": Case("dpo"),
    "kto": Case("{name: kto, beta: 0.3}", batch=8, lr=6e-3),
    "orpo": Case("{name: orpo, odds_weight: 1.0}"),
    "simpo": Case("simpo"),
    "reward": Case("reward"),
}


def learn(folder: Path, name: str, seed: int = 1) -> tuple[Path, list[dict[str, Any]]]:
    """Trains and returns the run's folder and the evaluations, before and after."""
    case = CASES[name]
    settings = folder / f"{name}.yaml"
    settings.write_text(
        RUN.format(
            folder=folder,
            vocabulary=VOCABULARY,
            rows="kto" if name == "kto" else "pairs",
            objective=case.objective,
            batch=case.batch,
            lr=case.lr,
            steps=STEPS,
            name=f"{name}-{seed}",
            seed=seed,
        )
    )
    assert main(["train", str(settings)]) == 0
    (run,) = (folder / f"runs-{name}-{seed}").iterdir()
    return run, [line for line in read_metrics(run) if "eval_loss" in line]


def plain_accuracy(model: Path, held_out: Store) -> float:
    """Returns in how many pairs the exported reward model, loaded by transformers alone, prefers the chosen answer."""
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    rewards = []
    with torch.no_grad():
        for number in range(held_out.num_documents):
            ids = torch.from_numpy(held_out.document(number)[0].astype(np.int64))
            rewards.append(float(network(input_ids=ids[None]).logits[0, 0]))
    assert held_out.document_role is not None and held_out.document_role[::2].tolist() == [Role.CHOSEN] * (len(rewards) // 2)
    return float((np.array(rewards[::2]) > np.array(rewards[1::2])).mean())


@pytest.mark.usefixtures("one_thread", "own_signals")
@pytest.mark.parametrize("name", CASES)
def test_from_chance_to_nine_in_ten(corpus: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run, (before, after) = learn(corpus, name)
    print(f"{name}: held-out accuracy {before['eval_accuracy']:.3f} -> {after['eval_accuracy']:.3f}")
    assert 0.35 <= before["eval_accuracy"] <= 0.65
    assert after["eval_accuracy"] >= AT_LEAST
    assert after["eval_loss"] < before["eval_loss"] and after["eval_margin"] > before["eval_margin"]
    if name == "reward":
        (part,) = (path for path in (corpus / "stores").glob("*/validation") if Store(path).supervised == Store(path).num_documents)
        said = capsys.readouterr().out
        assert f"AutoModelForSequenceClassification loads {run / 'model'}" in said and "aisc chat" not in said
        assert plain_accuracy(run / "model", Store(part)) == after["eval_accuracy"]
        for words in (["eval", str(run)], ["export", str(run), "--release"]):
            assert main(words) == 2
            assert f"{run.name}: a reward model, which scores answers and writes none, so " in capsys.readouterr().err
