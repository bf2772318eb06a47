"""The list of runs, runs found by name or job, and what stop, resume and retry say where they can do nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from cli.runs import ORDER, cells_of, shown_columns, sweep_meant
from configs.errors import LaunchError, UserError
from configs.runfolder import RunFolder, process_start
from launch import control
from launch.listing import row_of, sweep_hours
from launch.live import Queue, Queued
from launch.runs import all_runs, find_run
from launch.sweep import SweepInfo, create
from launch.sweep_grid import Point
from tests.written_run import NIGHT, WrittenRun


def cells(run: WrittenRun, queue: Queue | None = None, *, now: float = NIGHT + 3600) -> list[str]:
    found = cells_of(row_of(RunFolder(run.path), queue or Queue(), now))
    return [found[name] for name in ORDER]


def test_a_run_in_the_queue_at_work_and_requeued(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT)
    waits = Queue({481411: Queued(481411, "PENDING", "Priority")})
    assert cells(run, waits) == ["hk_cpt-77ab01", "waits 481411", "-", "-", "-", "-", "waits"]
    run.start(NIGHT)
    steps = [(n, NIGHT + 600 + 2.0 * n) for n in range(1, 1001)]
    run.attempt([(NIGHT + 10, "start-up"), (NIGHT + 600, "train")], at=NIGHT + 60, steps=steps)
    works = Queue({481411: Queued(481411, "RUNNING", "", NIGHT, "node03")})
    assert cells(run, works) == ["hk_cpt-77ab01", "running 481411 node03", "1,000/8,010", "-", "16.0", "83 %", "3 h 53"]
    run.start(NIGHT, NIGHT + 3600, verdict="requeued")
    assert cells(run, waits)[1:] == ["requeued 481411 x1", "1,000/8,010", "-", "16.0", "56 %", "waits"]


@pytest.mark.parametrize(("kind", "words"), [("memory", "failed: out of memory"), ("failed", "failed: a check"), ("lost", "failed: rank lost")])
def test_a_failure_in_a_few_words(tmp_path: Path, kind: str, words: str) -> None:
    run = WrittenRun(tmp_path)
    run.ended(run.attempt(at=NIGHT, job=None), NIGHT + 9, "failed", 1, "why", kind=kind)
    row = row_of(RunFolder(run.path), Queue(), NIGHT + 10)
    assert row.state == words and row.is_bad


def test_gave_up_and_never_begun(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT)
    assert cells(run)[1] == "not in the queue"
    run.start(NIGHT, NIGHT + 5, verdict="failed", cause="no aisc there")
    assert cells(run)[1] == "failed: before it began"
    run.start(NIGHT + 9, NIGHT + 9, restart=1, verdict="gave up", cause="3 starts in vain")
    assert cells(run)[1] == "gave up"


def test_a_sweep_is_one_line_with_the_hours_of_its_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, Any] = {"stem": "onc", "kind": "grid", "where": "slurm", "folder": "/", "words": [], "axes": {"training.seed": ["1", "2"]}}
    points = [Point(number, {"training.seed": str(number)}) for number in (1, 2)]
    sweep = create(tmp_path / "onc-2b81f0", SweepInfo(**values, throttle=2), None, [(point, "{}") for point in points])
    for point in points:
        run = WrittenRun(sweep.path, f"other-{point.number}")
        run.start(NIGHT, NIGHT + 360 * point.number, verdict="failed")
    hours, share = sweep_hours(sweep.path, NIGHT + 9000)
    assert hours == pytest.approx(4.8) and share == 0.0
    assert main(["runs", f"run.dir={tmp_path}"]) == 0
    assert "onc-2b81f0 (2)  2 waiting  -     -            4.8      0 %" in capsys.readouterr().out
    assert [run.name for run in all_runs(tmp_path)] == []
    assert sweep_meant("onc", tmp_path) is not None and sweep_meant("2b81f0", tmp_path) is not None
    WrittenRun(tmp_path, "onc-77ab01").job()
    assert sweep_meant("onc", tmp_path) is None and sweep_meant("2b81f0", tmp_path) is not None


def test_columns_are_left_out_before_they_are_cut_off() -> None:
    widths = {"RUN": 22, "STATE": 21, "STEP": 11, "EVAL_LOSS": 13, "GPU-h": 5, "TRAINED": 7, "LEFT": 6}
    assert shown_columns(widths, None) == ORDER
    assert shown_columns(widths, 120) == ORDER
    assert shown_columns(widths, 90) == ("RUN", "STATE", "STEP", "EVAL_LOSS", "GPU-h", "LEFT")
    assert shown_columns(widths, 80) == ("RUN", "STATE", "STEP", "EVAL_LOSS", "LEFT")[:4]


def test_a_run_is_found_by_its_job_and_before_its_first_start(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(481411, at=NIGHT)
    assert [found.name for found in all_runs(tmp_path)] == ["hk_cpt-77ab01"]
    for words in ("481411", "77ab01", "hk_cpt", str(run.path)):
        assert find_run(words, tmp_path).path == run.path
    with pytest.raises(UserError, match="481599: no run in .* has a job of this number; what Slurm itself remembers: sacct -j 481599"):
        find_run("481599", tmp_path)


def test_stop_reaches_a_run_of_this_machine_by_its_file(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    facts: dict[str, Any] = {"pid": os.getpid(), "pid_started": process_start(os.getpid())}
    attempt = run.attempt(at=NIGHT, job=None, host=socket.gethostname(), **facts)
    assert control.stop(run.path) == "hk_cpt-77ab01: asked attempt 1 to save and stop after its step; it is not requeued"
    assert attempt.stop_requested()


def test_what_cannot_be_stopped_resumed_or_retried_is_said(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    attempt = run.attempt(at=NIGHT, job=None)
    run.ended(attempt, NIGHT + 9, "stopped", 75, "asked to stop (SIGTERM)", kind="outside")
    with pytest.raises(LaunchError, match="nothing to stop, it is stopped: asked to stop"):
        control.stop(run.path)
    with pytest.raises(LaunchError, match="it has not failed .stopped.; it goes on with: aisc runs resume hk_cpt-77ab01"):
        control.retry(run.path)
    with pytest.raises(LaunchError, match="was not launched through Slurm"):
        control.resume(run.path)
    run.ended(attempt, NIGHT + 9, "done", 0)
    with pytest.raises(LaunchError, match="it is done"):
        control.retry(run.path)


def test_the_screens_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = WrittenRun(tmp_path)
    run.start(NIGHT, NIGHT + 3600, verdict="finished")
    attempt = run.attempt([(NIGHT + 60, "train"), (NIGHT + 3500, "tail")], at=NIGHT + 50, steps=[(8010, NIGHT + 3400)])
    run.ended(attempt, NIGHT + 3550, "done", 0)
    (run.path / "result.json").write_text('{"eval_loss": 2.2, "eval_loss_before": 2.9, "steps": 8010, "best_step": 8010, "tokens": 1, "supervised": 1, "ledger": "00"}')
    place = f"run.dir={tmp_path}"
    assert main(["runs", place]) == 0
    header, line, _ = capsys.readouterr().out.splitlines()
    assert header.split() == list(ORDER)
    assert line.split() == ["hk_cpt-77ab01", "done", "8,010/8,010", "2.200", "(2.900)", "16.0", "96", "%", "-"]
    assert main(["runs", "follow", "77ab01", place]) == 0
    assert "done, eval_loss 2.200, 8,010 steps." in capsys.readouterr().out
    assert main(["runs", "goodput", "77ab01", place]) == 0
    text = capsys.readouterr().out
    assert "16.0 GPU-hours in 1 start" in text and "HK$ list" in text and "120" in text
    assert main(["runs", "goodput", "--month", "2026-11", place]) == 0
    assert "oncology        2026-11      1" in capsys.readouterr().out
    assert main(["runs", "goodput", "--project", "none", place]) == 0
    assert "no hours of project none" in capsys.readouterr().out
    assert main(["runs", "goodput", "77ab01", "--month", "2026-11", place]) == 2
