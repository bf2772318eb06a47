"""Options of a run, each through the command line on a tiny model: what it promises is read from the run folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cli.main import main
from configs.runfolder import RunFolder, read_json, read_ledger, read_metrics
from data_pipelines.index import Store
from launch.runs import all_runs
from tests.kills.lab import make_chats, make_tokenizer
from train.loss_scale import LossScale


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 160))
    return folder


def train(place: Path, runs: Path, *options: str) -> tuple[int, RunFolder]:
    """Runs 24 steps with options; returns the exit code and the newest run of `runs`."""
    code = main(
        [
            "train",
            "model=tiny_llama",
            f"model.tokenizer={place / 'tokenizer'}",
            f"data={place / 'chats.jsonl'}",
            f"data.store={place / 'stores'}",
            f"run.dir={runs}",
            "data.sequence_length=64",
            "data.workers=1",
            "training.global_batch_size=4",
            "training.micro_batch_size=4",
            "training.duration=24 steps",
            "optimizer.lr=3e-3",
            "evaluation.every=8 steps",
            "evaluation.replies=0",
            *options,
        ]
    )
    return code, all_runs(runs)[0]


def losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in read_metrics(run.path) if "loss" in line]


@pytest.fixture(scope="module")
def plain(place: Path) -> RunFolder:
    code, run = train(place, place / "plain")
    assert code == 0
    return run


def test_eval_loss_is_that_of_the_exported_weights(place: Path, plain: RunFolder) -> None:
    """Measured again by transformers alone: every document by itself, all logits, fp32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(plain.path / "model").eval()
    start = plain.attempts()[0].read_start()
    assert start is not None
    store = Store(Path(start["store_folder"]) / "validation")
    total = count = 0.0
    for document in range(store.num_documents):
        ids, mask = store.document(document)
        tokens = torch.from_numpy(ids.astype(np.int64))
        with torch.no_grad():
            logits = model(tokens[None]).logits[0, :-1]
        nll = F.cross_entropy(logits.float(), tokens[1:], reduction="none")
        total += float(nll[torch.from_numpy(mask[1:].copy())].sum())
        count += int(mask.sum())
    result = read_json(plain.result_path)
    assert result is not None and result["eval_loss"] == pytest.approx(total / count, rel=1e-5)
    assert result["eval_loss"] < 0.8 * result["eval_loss_before"]


@pytest.mark.parametrize("what", ["selective", "full"])
def test_recomputing_activations_changes_no_number(place: Path, plain: RunFolder, tmp_path: Path, what: str) -> None:
    code, run = train(place, tmp_path, f"training.gradient_checkpointing={what}")
    assert code == 0
    assert losses(run) == pytest.approx(losses(plain), rel=1e-6)


def test_bf16_learns_like_fp32(place: Path, plain: RunFolder, tmp_path: Path) -> None:
    code, run = train(place, tmp_path, "training.precision=bf16")
    assert code == 0
    assert losses(run) != losses(plain)
    assert losses(run) == pytest.approx(losses(plain), rel=0.03)


def test_fp16_takes_a_batch_again_after_an_overflow(
    place: Path, plain: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale of 2**24 overflows fp16 (65,504 at most) until it has been halved often enough; no batch is lost by it."""
    monkeypatch.setattr("train.loss_scale.INITIAL", 2.0**24)
    overflowed, halved = LossScale.overflowed, []
    monkeypatch.setattr(LossScale, "overflowed", lambda scale: halved.append(scale.value) or overflowed(scale))
    options = ("training.precision=fp16", "training.duration=6 steps", "training.min_steps=0", "lr_scheduler.name=constant")
    code, run = train(place, tmp_path, *options)
    assert code == 0
    code, same = train(place, tmp_path / "fp32", *options[1:])
    assert code == 0
    assert len(halved) >= 2
    assert losses(run) == pytest.approx(losses(same), rel=5e-3)
    assert [line["head"] for line in read_ledger(run.path)] == [line["head"] for line in read_ledger(same.path)]


@pytest.mark.parametrize("model", ["tiny_qwen3", "tiny_deepseek_v3"])
def test_other_architectures_learn(place: Path, tmp_path: Path, model: str) -> None:
    code, run = train(place, tmp_path, f"model={model}")
    assert code == 0
    result = read_json(run.result_path)
    assert result is not None and result["eval_loss"] < 0.9 * result["eval_loss_before"]


def test_continued_pretraining(place: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"line {i} and then {i * 3} more of it" for i in range(400)))
    code, run = train(place, tmp_path / "runs", f"data={tmp_path / 'a.txt'}", "objective=cpt")
    assert code == 0
    result = read_json(run.result_path)
    assert result is not None and result["supervised"] > 0.8 * result["tokens"]
    assert result["eval_loss"] < 0.8 * result["eval_loss_before"]


def test_patience_stops_and_the_best_weights_are_exported(place: Path, tmp_path: Path) -> None:
    """A learning rate far too high makes every evaluation worse than the first."""
    options = ("optimizer.lr=1.0", "evaluation.every=2 steps", "evaluation.patience=2", "lr_scheduler.name=constant")
    code, run = train(place, tmp_path, *options, "lr_scheduler.warmup=0")
    assert code == 0
    result = read_json(run.result_path)
    assert result is not None and result["steps"] < 24
    assert result["eval_loss"] < result["eval_loss_last"] and result["best_step"] < result["steps"]


def test_retention_keeps_the_newest_and_the_best(place: Path, tmp_path: Path) -> None:
    code, run = train(place, tmp_path, "checkpoint.every=4 steps", "checkpoint.keep=2")
    assert code == 0
    kept = sorted(int(path.name.removeprefix("step-")) for path in run.attempts()[0].checkpoints.iterdir())
    result = read_json(run.result_path)
    assert result is not None and kept == sorted({20, 24, result["best_step"]})


def test_a_run_is_not_continued_on_other_data(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "chats.jsonl"
    data.write_bytes((place / "chats.jsonl").read_bytes())
    code, run = train(place, tmp_path / "runs", f"data={data}")
    assert code == 0
    run.attempts()[0].exit_path.unlink()
    run.result_path.unlink()
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    capsys.readouterr()
    code, _ = train(place, tmp_path / "runs", f"data={data}")
    said = capsys.readouterr().err
    assert code == 2 and len(run.attempts()) == 1
    assert re.search(r"the training data \(store fingerprint\) changed: \w{12}\.\. in .*start.json, \w{12}\.\. now", said)
    assert "--new" in said


def test_dry_run_leaves_no_run_folder(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        [
            "train",
            "model=tiny_llama",
            f"model.tokenizer={place / 'tokenizer'}",
            f"data={place / 'chats.jsonl'}",
            f"data.store={place / 'stores'}",
            f"run.dir={tmp_path / 'runs'}",
            "data.sequence_length=64",
            "training.global_batch_size=4",
            "--dry-run",
        ]
    )
    said = capsys.readouterr().out
    assert code == 0 and not (tmp_path / "runs").exists()
    for word in ("model", "data", "packed", "step", "lr", "engine", "check"):
        assert re.search(rf"^  {word} ", said, re.MULTILINE), word
    assert "(default for full fine-tuning)" in said


def test_manifest_names_every_byte(plain: RunFolder, place: Path) -> None:
    from configs.atomic import sha256_file

    manifest = json.loads((plain.path / "manifest.json").read_text())
    assert manifest["data"] == {str(place / "chats.jsonl"): sha256_file(place / "chats.jsonl")}
    for name, digest in manifest["outputs"].items():
        assert sha256_file(plain.path / name) == digest
    assert set(manifest["versions"]) >= {"torch", "transformers", "peft", "python"}


def test_everything_is_private(plain: RunFolder) -> None:
    for path in plain.path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_several_sources_are_told_apart(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_chats(tmp_path / "more.jsonl", 60)
    sources = f"data.sources={{sums: {place / 'chats.jsonl'}, more: {{path: {tmp_path / 'more.jsonl'}, weight: 2.0}}}}"
    capsys.readouterr()
    code = main(
        [
            "train",
            "model=tiny_llama",
            f"model.tokenizer={place / 'tokenizer'}",
            sources,
            f"data.store={tmp_path / 'stores'}",
            f"run.dir={tmp_path / 'runs'}",
            "data.validation=20%",
            "data.sequence_length=64",
            "training.global_batch_size=4",
            "training.duration=20 steps",
            "evaluation.every=end",
            "evaluation.replies=0",
        ]
    )
    said = capsys.readouterr().out
    assert code == 0
    assert re.search(r"shares of tokens: sums \d+\.\d% \(x1\)  more \d+\.\d% \(x2\)", said)
    assert re.search(r"perplexity .* by source: sums \d+\.\d\d  more \d+\.\d\d", said)
    result = read_json(all_runs(tmp_path / "runs")[0].result_path)
    assert result is not None and set(result["eval_loss_by_source"]) == {"sums", "more"}
