"""Files and folders appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from configs import atomic
from configs.errors import CheckpointError
from configs.jsonlines import append_line, read_lines


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    atomic.write_file(path, "first")
    atomic.write_json(path, {"loss": 1.5, "名": "港"})
    assert path.read_text() == '{\n "loss": 1.5,\n "名": "港"\n}\n'
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    atomic.write_file(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_the_first_of_two_published_folders_stays(tmp_path: Path) -> None:
    final = tmp_path / "store"
    for text, wins in (("one", True), ("two", False)):
        with atomic.temporary_folder(final) as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner" / "a").write_text(text)
            assert atomic.publish_folder(temporary, final) is wins
    assert (final / "inner" / "a").read_text() == "one"
    assert os.listdir(tmp_path) == ["store"]


def test_a_folder_left_by_an_error_is_deleted(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic.temporary_folder(tmp_path / "store") as temporary:
        (temporary / "a").write_text("half")
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_removing_a_folder_twice_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    atomic.remove_folder(tmp_path / "a")
    atomic.remove_folder(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_hash_of_a_file(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 7)
    (tmp_path / "a").write_bytes(data)
    assert atomic.sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("torn", ["", '{"step": 3', "3", '{"step": 3}\n{"st'])
def test_a_torn_last_line_is_ignored(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    append_line(path, {"step": 1})
    append_line(path, {"step": 2, "source": "港"})
    path.write_text(path.read_text() + torn)
    assert [line["step"] for line in read_lines(path)][:2] == [1, 2]
    assert len(read_lines(path)) == 2 + torn.count("}")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("torn", ['{"step": 1', "[1]", "\x00\x00"])
def test_a_torn_middle_line_is_an_error(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + torn + '\n{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: line 2 is not a JSON object"):
        read_lines(path)


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none.jsonl") == []
