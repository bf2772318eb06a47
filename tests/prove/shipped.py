"""Shipped experiments in reduced form, every training stage of each chain, as `aisc prove` takes it.

    python -m tests.prove.shipped small      three of them with a vocabulary of 400, a line of JSON for each: CI
    python -m tests.prove.shipped full       all, with their models' own vocabularies: the counts

The data is some rows of the experiment's own; those without data get rows of the same corpora.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.corpora import ctcpc, hkcancor, icd_pairs, oncology, script_pairs
from tests.chains.reduced import PACKAGES, ROOT, keep
from tests.kills.lab import make_tokenizer
from train.prove.forked import run_ranks
from train.prove.prove import import_stack

EXPERIMENTS = ("demo", "oncology_sft", "hkgai_chain", "hkgai_chain_deepseek", "oncology_chain", "oncology_chain_qwen3")
# One run, a chain of whole models, one of adapters in bf16: every objective that the experiments have.
IN_CI = ("oncology_sft", "hkgai_chain", "oncology_chain_qwen3")
DEMO = ROOT / ".cache" / "demo"
SMOLLM2 = DEMO / "smollm2"
# What `engine: auto` takes on the nodes that the experiment names; here, without a GPU, it is ddp.
OF_NODES = {"hkgai_chain_deepseek": ("engine=zero3_offload",)}
ROWS = 100


def build_data(folder: Path) -> dict[str, Path]:
    """Makes some rows of each corpus, with a patient's name that a hospital's rows have; returns the files."""
    for name, build in (
        ("hkcancor", lambda to: hkcancor.build(to, SMOLLM2, PACKAGES)),
        ("oncology", lambda to: oncology.build(to, PACKAGES)),
    ):
        if (DEMO / name / "about.json").is_file():  # `make corpora` has built it
            shutil.copytree(DEMO / name, folder / name)
        else:
            build(folder / name)
    ctcpc.build(folder / "ctcpc", PACKAGES)
    script_pairs.build(folder / "scripts", PACKAGES, num_pairs=ROWS)
    icd_pairs.build(folder / "icd", PACKAGES)
    files = {
        "texts": folder / "ctcpc" / "train.jsonl",
        "chats": folder / "hkcancor" / "train.jsonl",
        "prompts": folder / "hkcancor" / "prompts.jsonl",
        "scripts": folder / "scripts" / "pairs" / "train.jsonl",
        "held_out": folder / "scripts" / "pairs" / "held_out.jsonl",
        "oncology": folder / "oncology" / "train.jsonl",
        "icd": folder / "icd" / "train.jsonl",
    }
    for name in ("texts", "chats", "oncology", "icd"):
        keep(files[name], ROWS)
    for name, source in (("patients", "oncology"), ("preferences", "icd")):
        files[name] = folder / f"{name}.jsonl"
        rows = [json.loads(line) for line in files[source].read_text(encoding="utf-8").splitlines()]
        files[name].write_text("".join(json.dumps({**row, "patient_id": f"p{n}"}) + "\n" for n, row in enumerate(rows)))
    return files


def words_of(files: dict[str, Path]) -> dict[str, list[str]]:
    """Returns what each experiment is told of its data."""
    return {
        "demo": [f"data.train={files['chats']}"],
        "oncology_sft": [f"data.train={files['oncology']}"],
        "hkgai_chain": [
            f"stages.cpt.data.train={files['texts']}",
            f"stages.cpt.data.decontaminate=[{files['held_out']}]",
            f"stages.sft.data.train={files['chats']}",
            f"stages.dpo.data.train={files['scripts']}",
            f"stages.dpo.data.validation={files['held_out']}",
            f"stages.evaluate.tasks.cantonese_replies={files['prompts']}",
        ],
        "hkgai_chain_deepseek": [
            f"stages.cpt.data.train={files['texts']}",
            f"stages.sft.data.train={files['chats']}",
            f"stages.dpo.data.train={files['scripts']}",
        ],
        "oncology_chain": [f"stages.sft.data.train={files['oncology']}", f"stages.dpo.data.train={files['icd']}"],
        "oncology_chain_qwen3": [
            f"stages.sft.data.train={files['patients']}",
            f"stages.dpo.data.train={files['preferences']}",
        ],
    }


def small_model(folder: Path, experiment: str, texts: list[str]) -> list[str]:
    """Returns the words that make the experiment's model, whatever its size, one with a vocabulary of 400."""
    tokenizer = folder / "tokenizer"
    if not tokenizer.is_dir():
        make_tokenizer(tokenizer, texts)
    if experiment == "oncology_chain_qwen3":
        return [f"model.tokenizer={tokenizer}", "model.arch.vocab_size=400"]
    model = folder / "model"
    if not model.is_dir():
        model.mkdir()
        shape = json.loads((SMOLLM2 / "config.json").read_text(encoding="utf-8"))
        (model / "config.json").write_text(json.dumps({**shape, "vocab_size": 400}), encoding="utf-8")
    return [f"model.path={model}", f"model.tokenizer={tokenizer}"]


def prove(words: list[str]) -> dict[str, Any]:
    """Proves in this process; returns exit code and screen."""
    from cli.main import main

    screen, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(said):
        code = main(["prove", *words, "--reduced"])
    return {"code": code, "screen": screen.getvalue() + said.getvalue()}


def prove_all(size: str) -> Iterator[dict[str, Any]]:
    """Yields what each experiment gave; the stack is imported once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = build_data(folder)
        texts = [path.read_text(encoding="utf-8") for path in (files["chats"], files["icd"], files["texts"])]
        os.environ["AISC_PRIVACY_KEY"] = secrets.token_hex(32)
        for kind in ("llama", "qwen3", "deepseek_v3"):
            import_stack(kind, 0)
        words = words_of(files)
        for experiment in IN_CI if size == "small" else EXPERIMENTS:
            model = small_model(folder, experiment, texts) if size == "small" else [f"model.tokenizer={SMOLLM2}", *OF_NODES.get(experiment, ())]
            given = [f"experiment={experiment}", *words[experiment], *model]
            yield {"experiment": experiment, **run_ranks(1, prove, given, timeout_s=3600)[0]}


def full() -> dict[str, Any]:
    """Returns how many comparisons hold, by experiment."""
    found = list(prove_all("full"))
    if failed := [one for one in found if one["code"]]:
        raise SystemExit("\n".join(f"{one['experiment']}\n{one['screen']}" for one in failed))
    return {one["experiment"]: one["screen"].count("  ok") for one in found}


if __name__ == "__main__":
    if sys.argv[1:] == ["full"]:
        print(json.dumps(full()))
    else:
        for one in prove_all("small"):
            print(json.dumps(one), flush=True)
