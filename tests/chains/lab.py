"""A place for chains: a tokenizer, chats and pairs made on the spot, and a chain of a tiny random model over them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.kills.lab import make_chats, make_tokenizer

TIMEOUT_S = 600.0


def make_place(folder: Path) -> None:
    """Writes tokenizer/, chats.jsonl and pairs.jsonl into `folder`."""
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 80))
    chance = random.Random(1)
    with (folder / "pairs.jsonl").open("w") as file:
        for _ in range(60):
            a, b = chance.randrange(100), chance.randrange(100)
            row = {"prompt": f"What is {a} and {b}?", "chosen": f"{a} and {b} make {a + b}.", "rejected": f"{a} and {b} make {a * b}."}
            file.write(json.dumps(row) + "\n")


def sections(folder: Path, runs: Path, **stages: dict[str, Any]) -> dict[str, Any]:
    """Returns a chain over the data in `folder`, its runs in `runs`."""
    return {
        "model": {"preset": "tiny_llama", "tokenizer": str(folder / "tokenizer")},
        "data": {"sequence_length": 128, "validation": "10%", "workers": 1, "store": str(folder / "stores"), "licence": "CC0-1.0"},
        "training": {"duration": "6 steps", "min_steps": 0, "global_batch_size": 4, "micro_batch_size": 4, "precision": "fp32"},
        "optimizer": {"lr": 1e-3},
        "evaluation": {"every": "end", "replies": 0},
        "checkpoint": {"every": "2 steps"},
        "run": {"dir": str(runs)},
        "stages": stages,
    }


def aisc_command(*arguments: str) -> list[str]:
    """Returns the command line of `aisc *arguments`."""
    return [str(Path(sys.executable).with_name("aisc")), *arguments]


def aisc(*arguments: str) -> tuple[int, str]:
    """Runs `aisc *arguments` in a process of its own: exit code, and what it said."""
    done = subprocess.run(
        aisc_command(*arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout
