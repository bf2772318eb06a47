"""Room on the disk, counted before the first step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs.atomic import TEMPORARY_PREFIX
from configs.errors import ConfigError
from configs.runfolder import RunFolder
from tests.kills import saver
from train.checkpoint_reading import begin_attempt
from train.space import SMALL_FILES_BYTES, Needs, check_room, checkpoint_bytes, needs_of, spell_bytes
from train.state import Plan


def plan(save_every: int, evaluate_every: int) -> Plan:
    return Plan(total_steps=100, evaluate_every=evaluate_every, evaluate_before=True, save_every=save_every, patience=0)


@pytest.mark.parametrize(
    ("save_every", "evaluate_every", "evaluates", "keep", "checkpoints"),
    [
        (10, 10, True, 2, 4),  # two that stay, the best, the one being written
        (10, 10, False, 2, 3),
        (100, 100, True, 5, 2),  # never more than are saved: at the end, and the best
        (100, 100, False, 5, 1),
    ],
)
def test_checkpoints_at_a_time(
    save_every: int, evaluate_every: int, evaluates: bool, keep: int, checkpoints: int
) -> None:
    needs = needs_of(
        plan(save_every, evaluate_every), trained=10**9, optimizer="adamw", keep=keep, evaluates=evaluates, export_bytes=5
    )
    assert needs == Needs(12 * 10**9 + SMALL_FILES_BYTES, checkpoints, 5 + SMALL_FILES_BYTES)


def test_what_does_not_fit_is_refused_in_figures(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "a")
    usage = os.statvfs(tmp_path)
    free = usage.f_bavail * usage.f_frsize
    check_room(run, Needs(free // 4, 2, free // 8))
    message = (
        rf"run.dir={tmp_path}/runs: the run will write .*B there \(3 checkpoints of .*B at a time, and a model of "
        r"1.0 MB\), .*B are free. Make room, .*run.dir=FOLDER.*checkpoint.keep=1"
    )
    with pytest.raises(ConfigError, match=message):
        check_room(run, Needs(free // 2, 3, 10**6))
    assert not (tmp_path / "runs").exists(), "asking writes nothing"


def test_checkpoints_that_exist_need_no_room_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    attempt, _, _ = begin_attempt(run, {})
    saver.save(run, attempt, 1)
    files = (attempt.checkpoints / "step-00000001").iterdir()
    assert checkpoint_bytes(run) == sum(path.stat().st_size for path in files)
    with pytest.raises(ConfigError, match="bytes of it exist"):
        check_room(run, Needs(10**18, 2, 0))


def test_what_a_killed_save_has_left_is_named_where_room_is_missing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    attempt, _, _ = begin_attempt(run, {})
    temporary = attempt.checkpoints / f"{TEMPORARY_PREFIX}step-00000002-77-abc"
    temporary.mkdir()
    (temporary / "rank-00000.safetensors").write_bytes(b"x" * 2_000_000)
    with pytest.raises(ConfigError, match=r"2\.0 MB are of saves that were killed and can be deleted: .*/checkpoints/\.tmp-\*"):
        check_room(run, Needs(10**18, 2, 0))


def test_sizes_in_words() -> None:
    assert [spell_bytes(n) for n in (12, 1_500_000, 115_200_000_000, 3 * 10**12)] == ["12 bytes", "1.5 MB", "115.2 GB", "3.0 TB"]
