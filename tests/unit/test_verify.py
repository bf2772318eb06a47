"""`aisc verify` on written runs: one flipped byte anywhere is named, and so is a stage that read other bytes than were written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import main
from configs import atomic
from configs.atomic import sha256_file
from configs.errors import CheckpointError
from configs.runfolder import RunFolder
from train import lineage
from train.verify import Change, verify


def write_run(folder: Path, *, weights: Path | None = None) -> RunFolder:
    """A finished run as `verify` sees it: attempts, a model, inputs beside it, and their manifest."""
    inputs = folder.parent / f"{folder.name}-inputs"
    for path in (inputs / "chats.jsonl", inputs / "tokenizer.json", inputs / "store" / "train" / "ids.npy"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode() * 50)
    attempt = RunFolder(folder).claim()
    attempt.config_path.write_text("model: {}\n")
    attempt.write_start({}, None)
    attempt.ledger_path.write_text(json.dumps({"step": 1, "head": "ab" * 32}) + "\n")
    model = folder / "model" / "model.safetensors"
    model.parent.mkdir()
    model.write_bytes(b"weights" * 100)
    start = weights or inputs / "start.safetensors"
    if weights is None:
        start.write_bytes(b"start" * 100)
    ids = inputs / "store" / "train" / "ids.npy"
    manifest = {
        "run": folder.name,
        "working_folder": str(folder.parent),
        "data": {f"{inputs.name}/chats.jsonl": sha256_file(inputs / "chats.jsonl")},
        "store": {"folder": str(inputs / "store"), "files": {"train/ids.npy": {"bytes": ids.stat().st_size, "sha256": sha256_file(ids)}}},
        "weights": {str(start): sha256_file(start)},
        "tokenizer": {str(inputs / "tokenizer.json"): sha256_file(inputs / "tokenizer.json")},
        "config": {"attempts/1/config.yaml": sha256_file(attempt.config_path)},
        "records": {"attempts/1/ledger.jsonl": sha256_file(attempt.ledger_path)},
        "code": {str(path.relative_to(lineage.ROOT)): sha256_file(path) for path in lineage.source_files()[:5]},
        "outputs": {"model/model.safetensors": sha256_file(model)},
        "result": {"ledger": "ab" * 32},
    }
    atomic.write_json(folder / "manifest.json", manifest)
    return RunFolder(folder)


def flip(path: Path, byte: int = -1) -> None:
    """Flips one bit of one byte."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(bytes(content))


def test_nothing_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    found = verify(run)
    assert found.changes == [] and sum(found.checked.values()) == 13
    assert main(["verify", str(run.path)]) == 0
    assert "nothing changed: 13 compared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("data", "run-inputs/chats.jsonl"),
        ("store", "run-inputs/store/train/ids.npy"),
        ("weights", "run-inputs/start.safetensors"),
        ("tokenizer", "run-inputs/tokenizer.json"),
        ("config", "run/attempts/1/config.yaml"),
        ("outputs", "run/model/model.safetensors"),
    ],
)
def test_one_flipped_byte_is_named_with_both_hashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    run = write_run(tmp_path / "run")
    before = sha256_file(tmp_path / name)
    flip(tmp_path / name, 7)
    (change,) = verify(run).changes
    assert change.kind == kind and name.endswith(change.path.removeprefix(str(tmp_path) + "/").removeprefix("run/"))
    assert (change.expected, change.found) == (before, sha256_file(tmp_path / name))
    assert main(["verify", str(run.path)]) == 1
    said = capsys.readouterr().out
    assert change.path in said and f"{kind:<12}" in said and "1 of 13 changed" in said


def test_a_missing_file_and_a_cut_ledger_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "run-inputs" / "chats.jsonl").unlink()
    (run.path / "attempts" / "1" / "ledger.jsonl").write_text("")
    changes = {(change.kind, change.path): change.found for change in verify(run).changes}
    assert changes["data", "run-inputs/chats.jsonl"] == "missing"
    assert changes["records", "ledger.jsonl (last head)"] == "missing"
    assert ("records", "attempts/1/ledger.jsonl") in changes


def test_a_chain_is_followed_to_its_first_stage(tmp_path: Path) -> None:
    first = write_run(tmp_path / "cpt")
    second = write_run(tmp_path / "sft", weights=first.path / "model" / "model.safetensors")
    assert verify(second).runs == [second.path, first.path] and verify(second).changes == []
    flip(tmp_path / "cpt-inputs" / "chats.jsonl")
    assert [(change.run, change.kind) for change in verify(second).changes] == [("cpt", "data")]
    flip(tmp_path / "cpt-inputs" / "chats.jsonl")
    # The former stage was run again: what it wrote is not what the later one read.
    flip(first.path / "model" / "model.safetensors")
    shutil.rmtree(first.path / "attempts")
    digest = sha256_file(first.path / "model" / "model.safetensors")
    (first.path / "attempts").mkdir()
    manifest = json.loads((first.path / "manifest.json").read_text())
    manifest["outputs"]["model/model.safetensors"] = digest
    manifest |= {"config": {}, "records": {}, "result": {}}
    atomic.write_json(first.path / "manifest.json", manifest)
    read = json.loads((second.path / "manifest.json").read_text())["weights"]
    (lineage_change, weights_change) = sorted(verify(second).changes, key=lambda change: change.kind)
    assert lineage_change == Change("sft", "lineage", lineage_change.path, digest, next(iter(read.values())))
    assert (weights_change.run, weights_change.kind) == ("sft", "weights")


def test_a_run_that_is_not_done_has_nothing_to_verify(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").claim()
    with pytest.raises(CheckpointError, match=r"manifest.json: missing; expected a run that is done"):
        verify(RunFolder(tmp_path / "run"))
    (tmp_path / "run" / "manifest.json").write_text('{"data": {}}')
    with pytest.raises(CheckpointError, match="damaged, store, weights, .* missing"):
        verify(RunFolder(tmp_path / "run"))


def test_one_flipped_byte_of_our_code_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["code"] = {str(path.relative_to(lineage.ROOT)): sha256_file(path) for path in lineage.source_files()}
    atomic.write_json(run.path / "manifest.json", manifest)
    copy = tmp_path / "copy"
    for package in lineage.PACKAGES:
        shutil.copytree(lineage.ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    flip(copy / "train" / "schedule.py", 5)
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "verify", str(run.path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "code  train/schedule.py" in done.stdout and "1 of" in done.stdout


def test_an_evaluation_of_other_weights_than_the_runs_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run.path / "eval").mkdir()
    digest = sha256_file(run.path / "model" / "model.safetensors")
    values = {"model": "run", "kind": "run", "weights": {"model.safetensors": digest}}
    atomic.write_json(run.path / "eval" / "model.json", values)
    assert verify(run).changes == [] and verify(run).checked["run", "evaluations"] == 1
    atomic.write_json(run.path / "eval" / "model.json", {**values, "weights": {"model.safetensors": "ab" * 32}})
    assert verify(run).changes == [Change("run", "evaluations", "eval/model.json (weights model.safetensors)", digest, "ab" * 32)]


def test_a_release_without_its_list_is_said_to_be_damaged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run.path / "release").mkdir()
    atomic.write_json(run.path / "release" / "release.json", {"files": {}})
    with pytest.raises(CheckpointError, match=r"release.json: damaged, manifest, evaluations missing"):
        verify(run)
