"""The shipped chains at a size for CI: the same experiment files, some rows of the same real corpora, a tiny random model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.corpora import ctcpc, hkcancor, icd_pairs, oncology, script_pairs
from tests.kills.lab import make_tokenizer

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / ".cache" / "packages"
STEPS = 6
# What stands for "the model's own size", in every stage.
SMALL = (
    "model=tiny_llama",
    "model.path=null",  # the experiment's path would win over the tiny shape
    "data.overlength=truncate",
    "data.workers=1",
    f"training.duration={STEPS} steps",
    "training.min_steps=0",
    "training.global_batch_size=2",
    "training.micro_batch_size=1",
    "training.precision=fp32",
    "evaluation.replies=0",
    "checkpoint.every=3 steps",
    "stages.evaluate.limit=3",
)


def hkgai(folder: Path) -> list[str]:
    """Makes the data of hkgai_chain in `folder` and returns the words of the reduced chain."""
    ctcpc.build(folder / "ctcpc", PACKAGES)
    hkcancor.build(folder / "hkcancor", ROOT / ".cache" / "demo" / "smollm2", PACKAGES)
    script_pairs.build(folder / "scripts", PACKAGES, num_pairs=200)
    texts = keep(folder / "ctcpc" / "train.jsonl", 200)
    keep(folder / "hkcancor" / "train.jsonl", 60)
    make_tokenizer(folder / "tokenizer", texts)
    held_out = folder / "scripts" / "pairs" / "held_out.jsonl"
    return [
        "experiment=hkgai_chain",
        *SMALL,
        f"model.tokenizer={folder / 'tokenizer'}",
        f"data.store={folder / 'stores'}",
        f"stages.cpt.data.train={folder / 'ctcpc' / 'train.jsonl'}",
        f"stages.cpt.data.decontaminate=[{held_out}]",
        f"stages.sft.data.train={folder / 'hkcancor' / 'train.jsonl'}",
        f"stages.dpo.data.train={folder / 'scripts' / 'pairs' / 'train.jsonl'}",
        f"stages.dpo.data.validation={held_out}",
        f"stages.evaluate.tasks.cantonese_replies={folder / 'hkcancor' / 'prompts.jsonl'}",
    ]


def oncology_chain(folder: Path) -> list[str]:
    """Makes the data of oncology_chain in `folder` and returns the words of the reduced chain."""
    oncology.build(folder / "oncology", PACKAGES)
    icd_pairs.build(folder / "icd", PACKAGES)
    texts = keep(folder / "oncology" / "train.jsonl", 200)
    keep(folder / "icd" / "train.jsonl", 200)
    make_tokenizer(folder / "tokenizer", texts)
    return [
        "experiment=oncology_chain",
        *SMALL,
        f"model.tokenizer={folder / 'tokenizer'}",
        f"data.store={folder / 'stores'}",
        f"stages.sft.data.train={folder / 'oncology' / 'train.jsonl'}",
        f"stages.dpo.data.train={folder / 'icd' / 'train.jsonl'}",
    ]


def keep(path: Path, count: int) -> list[str]:
    """Leaves about `count` rows of a file, spread over it so that many groups are among them; returns their texts."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = lines[:: max(1, len(lines) // count)][:count]
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    return list(itertools.chain.from_iterable(texts_of(json.loads(line)) for line in kept))


def texts_of(value: Any) -> Iterator[str]:
    """Yields every text in a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_of(inner)
