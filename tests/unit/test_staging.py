"""Copies on a node's own disk: complete or refused, taken again after an interruption, invisible to names and hashes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import staged as staged_module
from configs.errors import ConfigError, LaunchError
from configs.schema import DataSection
from configs.staged import staged
from data_pipelines.build import prepare
from launch import staging
from launch.staging import stage_in
from tests.kills.lab import make_chats, make_tokenizer
from train.lineage import Hashing, fold


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(staging, "SPARE_BYTES", 0)
    staged_module._copies.cache_clear()
    yield
    staged_module._copies.cache_clear()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(5000))
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("x")
    return folder


def test_what_is_read_is_copied_and_found(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "local" / "aisc-17"
    said = stage_in(target, {"model": model})
    assert "staged model" in said
    assert {path.name for path in (target / "model").iterdir()} == {"model.safetensors", "config.json"}
    assert staged(model) == model, "without the variable a path is itself"
    monkeypatch.setenv("AISC_STAGED", str(target))
    assert staged(model) == target / "model"
    assert staged(model / "config.json") == target / "model" / "config.json"
    assert staged(model / "pytorch_model.bin") == model / "pytorch_model.bin", "not copied, so read where it is"
    assert staged(tmp_path / "elsewhere") == tmp_path / "elsewhere"


def test_hashes_go_by_the_original_names(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Hashing([model / "model.safetensors"]).result()
    target = tmp_path / "local" / "aisc-17"
    stage_in(target, {"model": model})
    monkeypatch.setenv("AISC_STAGED", str(target))
    assert Hashing([model / "model.safetensors"]).result() == plain
    (target / "model" / "model.safetensors").write_bytes(b"a bad copy")
    assert fold(Hashing([model / "model.safetensors"]).result()) != fold(plain), "it is the copy that is read"


def test_data_is_read_from_the_copy_and_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tokenizer(tmp_path / "tokenizer", make_chats(tmp_path / "chats.jsonl", 60))
    data = DataSection(train=str(tmp_path / "chats.jsonl"), sequence_length=64, workers=1, store=str(tmp_path / "stores"))
    before = prepare(data, "sft", str(tmp_path / "tokenizer"), seed=1)
    target = tmp_path / "local" / "aisc-17"
    stage_in(target, {"store": before.folder})
    monkeypatch.setenv("AISC_STAGED", str(target))
    after = prepare(data, "sft", str(tmp_path / "tokenizer"), seed=1)
    assert (after.folder, after.fingerprint) == (before.folder, before.fingerprint)
    assert after.train.folder == target / "store" / "train" and (after.train.ids == before.train.ids).all()


def test_a_start_after_an_interruption_copies_only_what_is_missing(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "local" / "aisc-17"
    stage_in(target, {"model": model})
    whole = (target / "model" / "config.json").stat()
    cut = target / "model" / "model.safetensors"
    cut.write_bytes(b"x" * 5000)  # as long as it should be, but cut short and preallocated: its time is another one
    stage_in(target, {"model": model})
    assert cut.read_bytes() == (model / "model.safetensors").read_bytes()
    assert (target / "model" / "config.json").stat().st_ino == whole.st_ino
    assert (target / "model" / "config.json").stat().st_ctime_ns == whole.st_ctime_ns


def test_no_room_is_said_before_anything_is_copied(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SPARE_BYTES", 1 << 60)
    target = tmp_path / "local" / "aisc-17"
    with pytest.raises(LaunchError, match=r"cluster\.stage_to=.*GB free, weights and data need .*leave it out"):
        stage_in(target, {"model": model})
    assert not list(target.iterdir())


def test_an_incomplete_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISC_STAGED", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no staged\.json there"):
        staged(tmp_path / "model")
