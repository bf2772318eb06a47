"""What becomes of a job at its end: only causes outside the run go back into the queue, and not for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs import atomic
from configs.compose import freeze, load
from configs.errors import LaunchError
from configs.runfolder import RunFolder, saved_step
from launch import job
from launch.job import attempt_of, begin, judge, starts_in_vain
from launch.records import JobStart, read_starts, write_start

START = JobStart(job_id=7, stage="train", restart=1, began=100.0, nodes=["n1", "n2"], gpus_per_node=2)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty run folder, seen from the second start of job 7."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    folder = tmp_path / "run-123456"
    (folder / "jobs").mkdir(parents=True)
    return folder


def ended(run: Path, state: str, code: int, **fields: Any) -> None:
    """Leaves an attempt of this start that ended so."""
    attempt = RunFolder(run).claim()
    attempt.write_start({}, None)
    attempt.finish(state, code, "the cause.", **fields)


@pytest.mark.parametrize(
    ("state", "code", "fields", "verdict"),
    [
        ("done", 0, {}, "finished"),
        ("stopped", 75, {"kind": "outside"}, "requeued"),
        ("stopped", 75, {"kind": "user"}, "stopped"),
        ("failed", 1, {"kind": "lost", "rank": 1}, "requeued"),
        ("failed", 75, {"kind": "hang", "rank": 1}, "requeued"),
        ("failed", 2, {"kind": "input"}, "failed"),
        ("failed", 1, {"kind": "failed"}, "failed"),
        ("failed", 1, {"kind": "memory", "rank": 0}, "failed"),
        ("failed", 1, {"kind": "disk", "rank": 0}, "failed"),
        ("failed", 1, {"kind": "error", "rank": 0}, "failed"),
        ("superseded", 1, {"kind": "superseded"}, "stopped"),
    ],
)
def test_the_attempt_s_own_word_decides(run: Path, state: str, code: int, fields: dict[str, Any], verdict: str) -> None:
    ended(run, state, code, **fields)
    assert judge(run, START, code).verdict == verdict


@pytest.mark.parametrize(("code", "verdict"), [(137, "requeued"), (143, "requeued"), (75, "requeued"), (1, "failed"), (2, "failed")])
def test_without_a_word_the_exit_code_decides(run: Path, code: int, verdict: str) -> None:
    assert judge(run, START, code).verdict == verdict


def test_an_attempt_of_another_start_says_nothing_of_this_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(run, "failed", 2, kind="input")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    later = JobStart(job_id=7, stage="train", restart=2, began=200.0, nodes=["n1"], gpus_per_node=2)
    assert attempt_of(run, later) is None
    assert judge(run, later, 143).verdict == "requeued"


def test_a_node_that_the_preflight_names_is_excluded_with_those_before(run: Path) -> None:
    write_start(run, JobStart(job_id=7, stage="train", restart=0, began=50.0, nodes=["n3"], gpus_per_node=2, verdict="excluded", excluded=["n3"]))
    atomic.write_json(run / "jobs" / "7.1.check.json", {"code": 76, "avoid": ["n2"], "again": [], "cause": "n2 is slow"})
    ending = judge(run, START, 76)
    assert (ending.verdict, ending.cause, ending.excluded) == ("excluded", "n2 is slow", ["n3", "n2"])


def test_starts_without_progress_are_counted_back_to_the_last_progress(run: Path) -> None:
    for restart, (step, verdict) in enumerate([(0, "requeued"), (40, "requeued"), (40, None), (40, "excluded"), (40, "requeued")]):
        write_start(
            run,
            JobStart(job_id=7, stage="train", restart=restart, began=float(restart), nodes=[], gpus_per_node=0, step=step, verdict=verdict),
        )
    assert starts_in_vain(run, 7, 40) == 3
    assert starts_in_vain(run, 7, 44) == 0
    assert starts_in_vain(run, 8, 40) == 0  # submitted again by a person: counted afresh


def test_the_fourth_start_without_progress_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(["model=tiny_llama", "model.tokenizer=/t", "data=/d.jsonl"]).config
    atomic.write_file(run / "launch.yaml", freeze(config))
    monkeypatch.setattr(job, "call", lambda command, **_: "n1\nn2\n" if "hostnames" in command else "")
    environment = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_GPUS": "0,1", "SLURM_JOB_END_TIME": "2000"}
    for restart in range(3):
        assert begin(run, {**environment, "SLURM_RESTART_COUNT": str(restart)}) == 2000.0
    with pytest.raises(LaunchError, match="3 starts of job 7 came no further than step 0") as caught:
        begin(run, {**environment, "SLURM_RESTART_COUNT": "3"})
    assert "aisc runs resume run-123456" in str(caught.value)
    last = read_starts(run)[-1]
    assert (last.verdict, last.code, last.nodes, last.gpus_per_node) == ("gave up", 1, ["n1", "n2"], 2)


def test_saved_step_counts_the_chain_only(run: Path) -> None:
    first = RunFolder(run).claim()
    first.write_start({}, None)
    assert saved_step(run) == 0
    (first.checkpoints / "step-00000012").mkdir()
    (first.checkpoints / ".tmp-step-00000016-x").mkdir()
    assert saved_step(run) == 12
    start = json.loads(first.start_path.read_text())
    assert (start["job_id"], start["job_restart"]) == (7, 1)
