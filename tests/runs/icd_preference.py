"""SmolLM2 learns which of two sibling ICD-10-CM codes is right:  python -m tests.runs.icd_preference [SEED ...]

Each seed divides the codes' categories anew and trains with dpo on one part; on the other, whose categories the training
never saw, a pair counts as right when the chosen answer is the more probable one. Beside it stand the model that the
training began from, and a bag of words and the length, fitted to the same part. Answers are scored by transformers alone.

Runs are kept in .cache/icd-soak: the same command goes on where it stopped. Prints one line of JSON.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from configs.runfolder import read_json
from data_pipelines.corpora.icd_pairs import Row, accuracy, bag_of_words, build, fitted_sureness, length_only

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".cache" / "icd-soak"
BASE = ROOT / ".cache" / "demo" / "smollm2"
SEEDS = (1, 2, 3)
TRAIN, HELD_OUT = 200, 160
# Short, as it is read with every answer.
SYSTEM = "Answer."
OPTIONS = (
    f"model={BASE}",
    "objective=dpo",
    "adapter=lora",
    "export.merge=true",
    "data.sequence_length=512",
    "data.licence=public domain (ICD-10-CM)",
    f"data.system_prompt={SYSTEM}",
    "data.validation=none",
    "training.duration=1 epoch",
    "training.global_batch_size=1",
    "training.micro_batch_size=1",
    "training.precision=fp32",
    "optimizer.lr=5e-4",
    "lr_scheduler={name: linear, warmup: 5 steps, min_lr_ratio: 0.1}",
    "checkpoint.every=50 steps",
)
BATCH = 16

Rows = list[Row]
Float64 = NDArray[np.float64]


def divide(pairs: Path, folder: Path, seed: int) -> tuple[Rows, Rows]:
    """Returns pairs to train on and pairs held out, and writes the first as rows; no category is in both."""
    rows: Rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    chance = random.Random(seed)
    categories = sorted({row["category"] for row in rows})
    chance.shuffle(categories)
    held_out: Rows = []
    while len(held_out) < HELD_OUT:
        category = categories.pop()
        held_out += [row for row in rows if row["category"] == category]
    # A pair and its mirror image, which follow one another, stay together: so no answer is chosen more often than rejected.
    left = [rows[number : number + 2] for number in range(0, len(rows), 2) if rows[number]["category"] in categories]
    train = [row for two in chance.sample(left, TRAIN // 2) for row in two]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", train), ("held_out", held_out)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return train, held_out


def train(folder: Path, seed: int) -> Path:
    """Trains on the folder's rows, or goes on; returns the exported model's folder."""
    data = [f"data.train={folder / 'train.jsonl'}", f"data.store={folder / 'stores'}"]
    words = [*OPTIONS, *data, f"training.seed={seed}", f"run.dir={folder / 'runs'}"]
    subprocess.run([sys.executable, "-m", "cli.main", "train", *words], check=True, cwd=ROOT, stdout=sys.stderr)
    (run,) = (folder / "runs").iterdir()
    return run / "model"


def margins(model: Path, rows: Rows) -> Float64:
    """Returns by how much the chosen answer's log-probability is above the rejected one's, `[n]`, float64."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    items = [_tokens(tokenizer, row["prompt"], row[name]) for row in rows for name in ("chosen", "rejected")]
    sums = np.zeros(len(items))
    by_length = sorted(range(len(items)), key=lambda number: len(items[number][0]))
    for first in range(0, len(items), BATCH):
        numbers = by_length[first : first + BATCH]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(items[number][0]) for number in numbers], batch_first=True)
        # Padding is on the right, behind everything that is scored: causal attention needs no mask.
        with torch.no_grad():
            hidden = network.model(input_ids=ids).last_hidden_state
            for row, number in enumerate(numbers):
                tokens, start = items[number]
                logits = network.lm_head(hidden[row, start - 1 : len(tokens) - 1]).double()
                sums[number] = logits.log_softmax(-1).gather(-1, ids[row, start : len(tokens), None]).sum()
    return sums[::2] - sums[1::2]


def _tokens(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], int]:
    """Returns a chat's tokens up to the end of its answer, and where the answer begins."""
    asked = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
    before = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": answer}], tokenize=False).rstrip("\n")
    start, tokens = (tokenizer(text, add_special_tokens=False).input_ids for text in (before, whole))
    assert tokens[: len(start)] == start
    return tokens, len(start)


def right(margin: Float64) -> float:
    """Returns the share of pairs that are told apart the right way; a tie is half of one."""
    return float(np.mean((margin > 0) + 0.5 * (margin == 0)))


def classifiers(rows: Rows, held_out: Rows) -> dict[str, float]:
    """Returns how often words, and length, tell the held-out pairs apart, fitted to the pairs of the training."""
    together = [*rows, *held_out]
    fitted, asked = np.split(np.arange(len(together)), [len(rows)])
    features = {"bag of words": bag_of_words(together), "length": length_only(together)}
    return {name: accuracy(fitted_sureness(values, fitted, asked)) for name, values in features.items()}


def learn(pairs: Path, seed: int) -> dict[str, Any]:
    """Returns one seed's figures, kept in its folder."""
    folder = KEPT / f"seed-{seed}"
    kept = read_json(folder / "figures.json")
    if kept is not None:
        return kept
    rows, held_out = divide(pairs, folder, seed)
    base, trained = margins(BASE, held_out), margins(train(folder, seed), held_out)
    difference = (trained > 0).astype(float) - (base > 0)
    figures = {
        "pairs": {"train": len(rows), "held out": len(held_out)},
        "categories": {"train": len({row["category"] for row in rows}), "held out": len({row["category"] for row in held_out})},
        "base": round(right(base), 4),
        "trained": round(right(trained), 4),
        "gain": round(float(difference.mean()), 4),
        "gain, standard error": round(float(difference.std(ddof=1) / np.sqrt(len(difference))), 4),
        **{name: round(value, 4) for name, value in classifiers(rows, held_out).items()},
    }
    (folder / "figures.json").write_text(json.dumps(figures))
    return figures


def main(arguments: list[str]) -> int:
    """Runs the seeds; what does not lie above the base and above both classifiers ends with 1."""
    torch.set_num_threads(2)
    build(KEPT / "pairs", ROOT / ".cache" / "packages")
    found = {f"seed {seed}": learn(KEPT / "pairs" / "train.jsonl", seed) for seed in map(int, arguments or SEEDS)}
    print(json.dumps(found))
    return 0 if all(one["trained"] > max(one["base"], one["bag of words"], one["length"]) for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
