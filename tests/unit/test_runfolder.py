"""Attempts, their chain, and what a run is doing."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from configs import runfolder
from configs.errors import CheckpointError
from configs.jsonlines import append_line
from configs.runfolder import Attempt, Parent, RunFolder, Superseded, state_of


def started(run: RunFolder, parent: Parent | None = None) -> Attempt:
    """Claims an attempt and writes its start."""
    attempt = run.claim()
    attempt.write_start({}, parent)
    return attempt


def write_steps(attempt: Attempt, first: int, last: int) -> None:
    for step in range(first, last + 1):
        append_line(attempt.metrics_path, {"step": step, "attempt": attempt.number})
        append_line(attempt.ledger_path, {"step": step, "head": f"{attempt.number}-{step}"})


def test_two_processes_never_claim_the_same_attempt(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    claimed: list[int] = []
    threads = [threading.Thread(target=lambda: claimed.append(run.claim().number)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(1, 17))
    assert [attempt.number for attempt in run.attempts()] == list(range(1, 17))


def test_folders_are_private(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    attempt = started(run)
    attempt.event("saved", step=1)
    attempt.finish("done", 0)
    for folder in (run.path, run.path / "attempts", attempt.path, attempt.checkpoints, attempt.log_dir):
        assert folder.stat().st_mode & 0o777 == 0o700
    for path in (attempt.start_path, attempt.events_path, attempt.exit_path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_metrics_follow_the_chain_up_to_each_branch(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    first = started(run)
    write_steps(first, 1, 12)  # killed after step 12, last checkpoint at 10
    second = started(run, Parent(1, 10, "a"))
    write_steps(second, 11, 17)
    run.claim()  # killed before it had a start.json
    fourth = started(run, Parent(2, 15, "b"))
    write_steps(fourth, 16, 20)
    write_steps(first, 13, 14)  # the first wakes up and goes on: never read
    lines = runfolder.read_metrics(run.path)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert [line["attempt"] for line in lines] == [1] * 10 + [2] * 5 + [4] * 5
    assert runfolder.read_ledger(run.path)[-1]["head"] == "4-20"
    assert [(link.attempt.number, link.until_step, link.manifest) for link in run.chain()] == [
        (4, None, None),
        (2, 15, "b"),
        (1, 10, "a"),
    ]


def test_an_attempt_that_found_no_checkpoint_starts_the_chain(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    write_steps(started(run), 1, 4)
    write_steps(started(run), 1, 2)
    assert [line["attempt"] for line in runfolder.read_metrics(run.path)] == [2, 2]


def test_falling_back_two_attempts_skips_the_one_between(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    write_steps(started(run), 1, 10)
    write_steps(started(run, Parent(1, 10, "a")), 11, 20)
    write_steps(started(run, Parent(1, 5, "c")), 6, 7)
    assert [(line["attempt"], line["step"]) for line in runfolder.read_metrics(run.path)] == [
        *((1, step) for step in range(1, 6)),
        (3, 6),
        (3, 7),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"parent": {"attempt": 2, "step": 1, "manifest": "a"}}', "parent attempt 2 is not an earlier one"),
        ('{"parent": {"attempt": 0, "step": 1, "manifest": "a"}}', "its parent, attempt 0, is gone"),
        ('{"parent": ', "damaged, not JSON"),
        ("[]", "damaged, not a JSON object"),
    ],
)
def test_a_chain_that_leads_nowhere_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    run = RunFolder(tmp_path / "run")
    run.claim()
    run.claim().start_path.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        run.chain()


def test_a_superseded_attempt_may_not_publish(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    first = started(run)
    first.check_current()
    assert not run.superseded(first)
    run.claim()
    assert run.superseded(first)
    with pytest.raises(Superseded, match="attempt 1 of run stops without saving: attempt 2 has started since"):
        first.check_current()


@pytest.mark.parametrize("key", ["identity", "store", "weights", "tokenizer"])
def test_another_fact_is_refused_with_both_hashes(tmp_path: Path, key: str) -> None:
    run = RunFolder(tmp_path / "run")
    facts = dict.fromkeys(("identity", "store", "weights", "tokenizer"), "a" * 64)
    run.claim().write_start(facts, None)
    run.check_same(facts)
    with pytest.raises(CheckpointError) as caught:
        run.check_same({**facts, key: "b" * 64})
    message = str(caught.value)
    assert runfolder.FIXED_FACTS[key] in message
    assert f"aaaaaaaaaaaa.. in {run.path}/attempts/1/start.json, bbbbbbbbbbbb.. now" in message
    assert message.endswith("or start a new run: --new")
    assert len(run.attempts()) == 1


def test_a_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(CheckpointError, match="cannot be written .*set run.dir or"):
        RunFolder(tmp_path / "runs" / "run").claim()


def test_where_runs_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AISC_RUNS", raising=False)
    assert runfolder.runs_dir(None) == Path("runs")
    monkeypatch.setenv("AISC_RUNS", "/scratch/runs")
    assert runfolder.runs_dir(None) == Path("/scratch/runs")
    assert runfolder.runs_dir("mine") == Path("mine")


def test_stop_by_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert runfolder.request_stop(run.path) is None
    first, second = started(run), started(run)
    assert runfolder.request_stop(run.path) == second
    assert second.stop_requested()
    assert not first.stop_requested()


def test_state_from_exit_json(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert state_of(run.path).state == "new"
    started(run).finish("failed", 1, "bad loss", step=3)
    status = state_of(run.path)
    assert (status.state, status.code, status.attempt, str(status)) == ("failed", 1, 1, "failed: bad loss")
    assert state_of(run.path).state == "failed"


def test_state_of_a_living_a_suspended_and_a_dead_process(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            started(run)
            os.write(writing, b"x")
            signal.pause()
        finally:
            os._exit(0)
    os.read(reading, 1)
    assert state_of(run.path).state == "running"
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    assert state_of(run.path).state == "killed"
    os.kill(pid, signal.SIGCONT)
    os.waitpid(pid, os.WCONTINUED)
    assert state_of(run.path).state == "running"
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert state_of(run.path).state == "killed", "a zombie is dead"
    os.waitpid(pid, 0)
    assert str(state_of(run.path)) == f"killed: process {pid} is gone and left no exit.json"
    os.close(reading)
    os.close(writing)


def test_another_process_with_the_same_number_is_not_the_run(tmp_path: Path) -> None:
    attempt = started(RunFolder(tmp_path / "run"))
    start = json.loads(attempt.start_path.read_text())
    assert start["pid"] == os.getpid()
    attempt.start_path.write_text(json.dumps({**start, "pid_started": "1"}))
    assert state_of(attempt.run).state == "killed"


@pytest.mark.parametrize(("age_s", "state"), [(30, "running"), (3600, "killed")])
def test_on_another_host_the_heartbeat_decides(tmp_path: Path, age_s: int, state: str) -> None:
    attempt = started(RunFolder(tmp_path / "run"))
    start = json.loads(attempt.start_path.read_text())
    assert start["host"] == socket.gethostname()
    attempt.start_path.write_text(json.dumps({**start, "host": "node07"}))
    write_steps(attempt, 1, 2)
    for path in (attempt.path, attempt.start_path, attempt.metrics_path):
        then = path.stat().st_mtime - age_s
        os.utime(path, (then, then))
    status = state_of(attempt.run)
    assert status.state == state
    assert "node07" in status.cause


def test_events_of_all_attempts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for _ in range(2):
        started(run).event("saved", step=5)
    assert [(e["attempt"], e["event"], e["step"]) for e in runfolder.read_events(run.path)] == [
        (1, "saved", 5),
        (2, "saved", 5),
    ]


def test_a_run_that_another_living_process_trains_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.check_idle()
    started(run)
    run.check_idle()  # our own process may start again
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            started(run)
            os.write(writing, b"x")
            signal.pause()
        finally:
            os._exit(0)
    os.read(reading, 1)
    with pytest.raises(CheckpointError, match=rf"process {pid} on this machine is training .*attempt 2.*: kill {pid}"):
        run.check_idle()
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    run.check_idle()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    run.check_idle()
    os.close(reading)
    os.close(writing)
