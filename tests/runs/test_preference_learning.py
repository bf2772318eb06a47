"""Every preference objective learns a rule: the same Cantonese sentence in Traditional script over Simplified script.

A model of random weights cannot tell the scripts apart; some dozens of steps must do, on sentences it has not seen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from configs.runfolder import read_metrics
from data_pipelines.corpora.script_pairs import build
from tests.kills.lab import TEMPLATE
from tests.unit.test_tiny_learner import one_thread, own_signals

__all__ = ["one_thread", "own_signals"]

ROOT = Path(__file__).parents[2]
PAIRS = 1000
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
    tie_word_embeddings: {tied}
    pad_token_id: 0
data:
  train: {folder}/{rows}/train.jsonl
  validation: {folder}/{rows}/held_out.jsonl
  sequence_length: 512
  store: {folder}/stores
  workers: 1
objective: {objective}
training: {{duration: {steps} steps, global_batch_size: 4, precision: fp32, seed: {seed}}}
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
    assert counts.train > 800 and counts.held_out > 60
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


def learn(folder: Path, name: str, objective: str, lr: float, *, steps: int = STEPS, seed: int = 1) -> list[dict[str, Any]]:
    """Trains and returns the evaluations, before and after."""
    settings = folder / f"{name}.yaml"
    settings.write_text(
        RUN.format(
            folder=folder,
            vocabulary=VOCABULARY,
            rows="kto" if name == "kto" else "pairs",
            tied=str(name != "reward").lower(),
            objective=objective,
            steps=steps,
            lr=lr,
            name=name,
            seed=seed,
        )
    )
    assert main(["train", str(settings)]) == 0
    (run,) = (folder / f"runs-{name}").iterdir()
    return [line for line in read_metrics(run) if "eval_loss" in line]


CASES = {
    "dpo": ("dpo", 3e-3),
    "kto": ("kto", 3e-3),
    "orpo": ("{name: orpo, odds_weight: 1.0}", 3e-3),
    "simpo": ("simpo", 3e-3),
    "reward": ("reward", 3e-3),
}


@pytest.mark.usefixtures("one_thread", "own_signals")
@pytest.mark.parametrize("name", CASES)
def test_from_chance_to_nine_in_ten(corpus: Path, name: str) -> None:
    before, after = learn(corpus, name, *CASES[name])
    print(f"{name}: held-out accuracy {before['eval_accuracy']:.3f} -> {after['eval_accuracy']:.3f}")
    assert 0.35 <= before["eval_accuracy"] <= 0.65
    assert after["eval_accuracy"] >= AT_LEAST
    assert after["eval_loss"] < before["eval_loss"] and after["eval_margin"] > before["eval_margin"]
