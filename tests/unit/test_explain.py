"""What a person reads at 3 a.m.: golden screens, at most ten lines of 80 columns, for every way a run can stand."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from configs import atomic
from launch.explain import REMEDIES, cancelled_mark, explain
from launch.live import Accounted, Accounts, Queue, Queued
from tests.written_run import NIGHT, WrittenRun

HANG = (
    "rank 11 (host node07, pid 4711) stands still at step 1005 in backward: train/step.py:88; 15 ranks wait for it in "
    "all_reduce: train/distributed.py:140, no progress for 300 s. Stacks: /runs/attempts/1/hang-0251. "
    "The same command continues from step 1004."
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def told(run: WrittenRun, *, now: float = NIGHT + 7200, queue: Queue | None = None, accounts: Accounts | None = None) -> list[str]:
    lines = explain(run.path, now=now, queue=queue, accounts=accounts)
    assert 1 <= len(lines) <= 10 and all(len(line) <= 80 for line in lines), "\n".join(lines)
    return lines


def trained(tmp_path: Path, *, saved: int = 1004) -> WrittenRun:
    """A run that trained from 02:00 to step 1,005, 3 s a step."""
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT - 300)
    run.start(NIGHT, NIGHT + 3072)
    attempt = run.attempt(
        [(NIGHT + 5, "start-up"), (NIGHT + 60, "compile"), (NIGHT + 90, "train")],
        at=NIGHT + 50,
        steps=[(n, NIGHT + 60 + 2.7 * n) for n in range(1, saved + 2)],
    )
    if saved:
        run.saved(attempt, saved, NIGHT + 60 + 2.7 * saved)
    return run


def newest(run: WrittenRun):  # type: ignore[no-untyped-def]
    from configs.runfolder import RunFolder

    return RunFolder(run.path).attempts()[-1]


def test_requeued_after_a_hang_is_the_screen_of_3_am(tmp_path: Path) -> None:
    run = trained(tmp_path)
    attempt = newest(run)
    run.ended(attempt, NIGHT + 3070, "failed", 75, HANG, kind="hang", rank=11)
    (attempt.path / "hang-0251").mkdir()
    (attempt.log_dir / "rank-00011.log").write_text("")
    excluded = {"verdict": "excluded", "cause": "GPU 3 of node07 at 41 % of its matrix rate", "excluded": ["node07"]}
    run.start(NIGHT + 3075, NIGHT + 3100, restart=1, step=1004, **excluded)
    waiting = Queue({481411: Queued(481411, "PENDING", "Resources", NIGHT + 8400)})
    assert told(run, queue=waiting, now=NIGHT + 3200) == [
        "hk_cpt-77ab01   requeued, waits in the queue (job 481411, about 04:20). You need",
        "do nothing.",
        "  02:51:10  rank 11 (host node07, pid 4711) stands still at step 1005 in",
        "            backward: train/step.py:88; 15 ranks wait for it in all_reduce:",
        "            train/distributed.py:140, no progress for 300 s",
        "  02:51:10  exit 75; last good checkpoint step 1,004",
        "  02:51:40  GPU 3 of node07 at 41 % of its matrix rate -> node07 excluded,",
        "            requeued",
        "lost   1 step, 1.3 GPU-hours (HK$ 10 net)           starts 2, without progress 0",
        "logs   .../attempts/1/logs/rank-00011.log   stacks .../attempts/1/hang-0251/",
    ]


def test_waits_for_the_first_time(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT)
    waiting = Queue({481411: Queued(481411, "PENDING", "Priority", NIGHT + 9000)})
    assert told(run, queue=waiting)[0] == "hk_cpt-77ab01   waits in the queue (job 481411, Priority, about 04:30). You need"
    held = Queue({481411: Queued(481411, "PENDING", "JobHeldUser")})
    assert told(run, queue=held)[-1] == "do     It is held: scontrol release 481411"


def test_waits_for_the_stage_before_it(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(481410, at=NIGHT, stage="prepare")
    run.job(481411, at=NIGHT + 1, after=481410)
    waiting = {481411: Queued(481411, "PENDING", "Dependency")}
    assert "waits for job 481410 to end (job 481411, train)." in told(run, queue=Queue(waiting))[0]
    both = {**waiting, 481410: Queued(481410, "RUNNING", "", NIGHT, "cpu1")}
    assert "prepare runs (job 481410 on cpu1)." in told(run, queue=Queue(both))[0]


def test_runs(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT)
    run.start(NIGHT + 10)
    run.attempt([(NIGHT + 20, "train")], at=NIGHT + 20, steps=[(1, NIGHT + 30), (2, NIGHT + 40)])
    works = Queue({481411: Queued(481411, "RUNNING", "", NIGHT + 10, "node[03,07]")})
    assert told(run, queue=works, now=NIGHT + 60) == [
        "hk_cpt-77ab01   runs (job 481411 on node[03,07]), step 2 of 8,010. You need do",
        "nothing.",
    ]


def test_a_node_that_was_lost_is_named_with_what_slurm_calls_it(tmp_path: Path) -> None:
    run = trained(tmp_path, saved=1000)
    run.start(NIGHT, None)
    row = Accounted(481411, "NODE_FAIL", NIGHT, NIGHT + 2800, 2800.0, 16)
    text = "\n".join(told(run, accounts=Accounts((row,))))
    assert "hk_cpt-77ab01   killed without a word (Slurm: NODE_FAIL)." in text
    assert "  02:46:40  no word from node03 after step 1,001 (Slurm: NODE_FAIL); last good" in text
    assert "do     Go on: aisc runs resume 77ab01" in text
    assert "lost   1 step" in text


@pytest.mark.parametrize("kind", sorted(REMEDIES))
def test_every_kind_of_failure_says_what_to_do(tmp_path: Path, kind: str) -> None:
    run = trained(tmp_path)
    run.start(NIGHT, NIGHT + 3072, verdict="failed")
    state = "superseded" if kind == "superseded" else "failed"
    run.ended(newest(run), NIGHT + 3070, state, 1, f"rank 3 (host node07, pid 1) met {kind} " + "and so on " * 60, kind=kind, rank=3)
    text = " ".join(" ".join(told(run)).split())
    assert "hk_cpt-77ab01 failed:" in text and "(rank 3)" in text and f"met {kind}" in text
    assert "last good checkpoint step 1,004" in text
    if kind == "memory":
        assert "Make training.micro_batch_size smaller and launch it again: it goes on at step 1,004." in text
    elif kind != "superseded":
        assert "aisc runs retry 77ab01" in text


def test_a_bad_loss_before_anything_was_saved(tmp_path: Path) -> None:
    run = trained(tmp_path, saved=0)
    run.start(NIGHT, NIGHT + 3072, verdict="failed")
    run.ended(newest(run), NIGHT + 100, "failed", 1, "step 2: loss nan is not finite; rows 3, 9 of notes.jsonl", kind="failed")
    lines = told(run)
    assert lines[:4] == [
        "hk_cpt-77ab01   failed: a check stopped it.",
        "  02:01:40  step 2: loss nan is not finite; rows 3, 9 of notes.jsonl",
        "  02:01:40  exit 1; nothing saved",
        "do     It would happen again: change what it names and launch it again.",
    ]


def test_stopped_by_its_user_while_it_ran_or_waited(tmp_path: Path) -> None:
    run = trained(tmp_path)
    run.start(NIGHT, NIGHT + 3072, verdict="stopped")
    run.ended(newest(run), NIGHT + 3070, "stopped", 75, "asked to stop (the file `stop`)", kind="user")
    lines = told(run)
    assert lines[0] == "hk_cpt-77ab01   stopped by you, saved step 1,004."
    assert "do     Go on: aisc runs resume 77ab01" in lines
    second = WrittenRun(tmp_path / "other")
    second.job(at=NIGHT)
    atomic.write_file(cancelled_mark(second.path, 481411), "")
    assert told(second)[0] == "hk_cpt-77ab01   stopped by you, saved step 0."


@pytest.mark.parametrize("cause", ["asked to stop (SIGTERM x2)", "asked to stop (the time limit is near)"])
def test_requeued_by_preemption_or_a_time_limit_lost_nothing(tmp_path: Path, cause: str) -> None:
    run = trained(tmp_path, saved=0)
    run.saved(newest(run), 1, NIGHT + 70)
    run.start(NIGHT, NIGHT + 3072, verdict="requeued", cause=cause)
    run.ended(newest(run), NIGHT + 3070, "stopped", 75, cause, kind="outside")
    waiting = Queue({481411: Queued(481411, "PENDING", "BeginTime", NIGHT + 8400)})
    assert told(run, queue=waiting) == [
        "hk_cpt-77ab01   requeued, waits in the queue (job 481411, about 04:20). You need",
        "do nothing.",
        f"  02:51:10  {cause}",
        "  02:51:10  exit 75; last good checkpoint step 1",
    ]


def test_gave_up(tmp_path: Path) -> None:
    run = trained(tmp_path)
    run.ended(newest(run), NIGHT + 3070, "failed", 75, HANG, kind="hang", rank=11)
    for restart in (1, 2):
        run.start(NIGHT + 4000 * restart, NIGHT + 4000 * restart + 60, restart=restart, step=1004, verdict="requeued")
    cause = "3 starts of job 481411 came no further than step 1004; the run ends here"
    run.start(NIGHT + 12_000, NIGHT + 12_000, restart=3, step=1004, verdict="gave up", cause=cause)
    text = " ".join(" ".join(told(run, now=NIGHT + 13_000)).split())
    assert "hk_cpt-77ab01 gave up after 2 starts without progress." in text and "came no further than step 1004" in text
    assert "do Look why, then: aisc runs retry 77ab01" in text and "starts 4, without progress 2" in text


def test_done_and_a_stage_after_it_that_failed(tmp_path: Path) -> None:
    run = trained(tmp_path)
    run.start(NIGHT, NIGHT + 3072, verdict="finished")
    run.ended(newest(run), NIGHT + 3070, "done", 0)
    (run.path / "result.json").write_text(json.dumps({"eval_loss": 0.8713, "steps": 1005}))
    assert told(run)[:2] == ["hk_cpt-77ab01   done, eval_loss 0.871, 1,005 steps.", "do     Talk to it: aisc chat 77ab01"]
    run.start(NIGHT + 4000, NIGHT + 4010, job_id=481412, stage="eval", verdict="failed", cause="no such pack")
    text = "\n".join(told(run))
    assert "trained, eval_loss 0.871; eval failed (job 481412)." in text and "eval: no such pack" in text


def test_failed_before_it_could_begin(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT)
    run.start(NIGHT + 10, NIGHT + 15, verdict="failed", cause="exit code 127 before the run could begin; the job's output says why")
    (run.path / "jobs" / "481411.out").write_text("aisc: command not found\n")
    assert told(run) == [
        "hk_cpt-77ab01   failed before it could begin.",
        "  02:00:15  exit code 127 before the run could begin; the job's output says why",
        "do     Look into its output, then: aisc runs retry 77ab01",
        "logs   .../jobs/481411.out",
    ]


def test_a_run_outside_slurm_is_continued_by_its_command(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    attempt = run.attempt([(NIGHT + 20, "train")], at=NIGHT + 20, steps=[(1, NIGHT + 30)], job=None)
    run.ended(attempt, NIGHT + 40, "failed", 1, "disk full", kind="disk", rank=0)
    text = "\n".join(told(run))
    assert "do     Make room, then: the same command" in text and "aisc runs" not in text


def test_a_controller_that_does_not_answer_is_said(tmp_path: Path) -> None:
    run = trained(tmp_path)
    run.ended(newest(run), NIGHT + 3070, "failed", 75, HANG, kind="hang", rank=11)
    lines = told(run, queue=Queue(note="from files only: squeue: the Slurm controller did not answer within 12 s"))
    assert lines[-1].startswith("note   from files only: squeue: the Slurm controller did not answer")


def test_a_name_of_any_length_stays_within_80_columns(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path, "a" * 120 + "-77ab01")
    run.job(at=NIGHT)
    run.start(NIGHT, NIGHT + 9, verdict="failed", cause="x" * 500)
    told(run, queue=Queue({481411: Queued(481411, "PENDING", "R" * 100)}))
    assert re.search("…", "\n".join(told(run)))
