"""Where hours went: labels of planted phases, sums that equal the length, money, months, Slurm's accounting beside it."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from launch.goodput import agrees, differences, goodput, month_bounds, totals, write_goodput
from launch.live import Accounted, Accounts, Queue, Queued, parse_accounts, parse_queue
from launch.segments import segments_of
from tests.written_run import NIGHT, WrittenRun

PHASES_OF_A_START = [(10.0, "start-up"), (12.0, "prepare"), (20.0, "start-up"), (30.0, "evaluate"), (40.0, "compile"), (60.0, "train")]


def at(*pairs: tuple[float, str]) -> list[tuple[float, str]]:
    return [(NIGHT + seconds, phase) for seconds, phase in pairs]


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {phase: round(value, 3) for phase, value in seconds.items()}


def test_a_start_that_saved_and_was_requeued_lost_nothing(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT - 100)
    run.start(NIGHT, NIGHT + 130, verdict="requeued")
    attempt = run.attempt(at(*PHASES_OF_A_START, (110.0, "save"), (118.0, "tail"), (121.0, "ended")), at=NIGHT + 29)
    run.ended(attempt, NIGHT + 118, "stopped", 75, "asked to stop (SIGTERM)", kind="outside")
    (segment,) = segments_of(run.path, now=NIGHT + 1000)
    assert rounded(segment.seconds()) == {
        "start-up": 22.0,
        "prepare": 8.0,
        "evaluate": 10.0,
        "compile": 20.0,
        "train": 50.0,
        "save": 8.0,
        "tail": 12.0,
    }
    assert segment.elapsed_s == 130 and segment.ended_by == "job" and segment.gpus == 16


def test_after_a_kill_the_step_under_way_is_lost_and_what_is_made_again_is_redone(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT)
    run.start(NIGHT, None)
    steps = [(n, NIGHT + 60 + 10 * n) for n in range(1, 6)]
    run.attempt(at(*PHASES_OF_A_START), at=NIGHT + 29, steps=steps)
    run.start(NIGHT + 200, None, restart=1)
    run.attempt(at((205.0, "start-up"), (230.0, "compile"), (250.0, "redone"), (270.0, "train")), at=NIGHT + 229, job=(481411, 1), parent=(1, 2))
    row = Accounted(481411, "NODE_FAIL", NIGHT - 1, NIGHT + 140, 141.0, 16)
    first, second = segments_of(run.path, now=NIGHT + 9000, accounted=[row])
    # Step 5 was whole at 110; the node was lost some time later, and Slurm noticed at 140.
    assert rounded(first.seconds()) == {"start-up": 22.0, "prepare": 8.0, "evaluate": 10.0, "compile": 20.0, "train": 50.0, "lost": 30.0}
    assert first.ended_by == "sacct" and first.slurm_s == 141.0
    # No word since: killed as well, at an unknown time.
    assert second.ended_by == "last sign" and second.seconds()["redone"] == 20.0


def test_without_accounting_a_killed_start_ends_with_its_last_sign(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.start(NIGHT, None)
    run.attempt(at(*PHASES_OF_A_START), at=NIGHT + 29, steps=[(1, NIGHT + 80)])
    (segment,) = segments_of(run.path, now=NIGHT + 90_000)
    assert segment.ended_by == "last sign" and segment.ended == NIGHT + 80
    (segment,) = segments_of(run.path, now=NIGHT + 90_000, queue={481411: Queued(481411, "RUNNING")})
    assert segment.ended_by == "running" and segment.ended == NIGHT + 90_000 and "lost" not in segment.seconds()


@pytest.mark.parametrize("phase", ["evaluate", "save"])
def test_an_evaluation_or_save_that_was_not_finished_is_lost(tmp_path: Path, phase: str) -> None:
    run = WrittenRun(tmp_path)
    run.start(NIGHT, NIGHT + 150, verdict="failed")
    attempt = run.attempt(at(*PHASES_OF_A_START, (100.0, phase), (120.0, "tail")), at=NIGHT + 29)
    run.ended(attempt, NIGHT + 120, "failed", 1, "out of memory", kind="memory")
    (segment,) = segments_of(run.path, now=NIGHT + 1000)
    seconds = rounded(segment.seconds())
    assert seconds["lost"] == 20.0 and seconds["tail"] == 30.0 and seconds["train"] == 40.0


def test_a_hang_is_lost_from_the_last_whole_step_to_the_end_of_the_job(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.start(NIGHT, NIGHT + 402, verdict="requeued")
    attempt = run.attempt(at(*PHASES_OF_A_START), at=NIGHT + 29, steps=[(1, NIGHT + 80), (2, NIGHT + 95)])
    run.ended(attempt, NIGHT + 400, "failed", 75, "rank 11 stopped answering", kind="hang", rank=11)
    (segment,) = segments_of(run.path, now=NIGHT + 1000)
    assert rounded(segment.seconds())["lost"] == 307.0


def test_stages_and_a_run_without_a_job(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.start(NIGHT, NIGHT + 60, job_id=7, stage="prepare", gpus_per_node=0, nodes=["cpu1"])
    run.start(NIGHT + 500, NIGHT + 530, job_id=9, stage="eval", nodes=["node03"], gpus_per_node=1)
    run.attempt(at((100.0, "start-up"), (150.0, "train"), (160.0, "tail"), (161.0, "ended")), at=NIGHT + 149, job=None)
    prepare, train, evaluate = segments_of(run.path, now=NIGHT + 1000)
    assert prepare.seconds() == {"prepare": 60.0} and evaluate.seconds() == {"evaluate": 30.0}
    assert train.job_id is None and train.elapsed_s == 61.0


def test_attempts_from_before_phases_were_written_are_unknown_not_guessed(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.start(NIGHT, NIGHT + 100, verdict="finished")
    run.ended(run.attempt(at=NIGHT + 30), NIGHT + 90, "done", 0)
    (segment,) = segments_of(run.path, now=NIGHT + 1000)
    assert rounded(segment.seconds()) == {"start-up": 30.0, "unknown": 70.0}


def test_phases_of_every_segment_sum_to_its_length_whatever_the_files_say(tmp_path: Path) -> None:
    chance = random.Random(7)
    names = ["start-up", "prepare", "compile", "train", "redone", "evaluate", "save", "tail", "ended"]
    for number in range(25):
        run = WrittenRun(tmp_path, f"any-{number:06d}")
        now = NIGHT
        for restart in range(chance.randrange(1, 4)):
            now += chance.uniform(0, 50)
            length = chance.choice([0.0, chance.uniform(1, 300)])
            run.start(now, now + length if chance.random() < 0.6 else None, restart=restart)
            if chance.random() < 0.8:
                times = [now + chance.uniform(-5, length + 5) for _ in range(chance.randrange(12))]
                attempt = run.attempt([(t, chance.choice(names)) for t in times], at=now + 1, job=(481411, restart), steps=[(1, now + length / 2)])
                if chance.random() < 0.6:
                    run.ended(attempt, now + length, chance.choice(["done", "stopped", "failed", "superseded"]), 1)
            now += length
        for segment in segments_of(run.path, now=now):
            assert math.isclose(sum(segment.seconds().values()), segment.elapsed_s, abs_tol=1e-6)
            assert all(a.ended == b.began for a, b in zip(segment.intervals, segment.intervals[1:], strict=False))


def test_hours_cost_queue_and_file(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT - 600)
    run.start(NIGHT, NIGHT + 3600, verdict="requeued")
    run.start(NIGHT + 3900, NIGHT + 7500, restart=1, verdict="finished")
    for restart, began in ((0, 0.0), (1, 3900.0)):
        attempt = run.attempt(at((began + 300, "train"), (began + 3300, "tail")), at=NIGHT + began + 300, job=(481411, restart))
        run.ended(attempt, NIGHT + began + 3300, "stopped" if restart == 0 else "done", 0)
    account = goodput(run.path, now=NIGHT + 9000)
    assert account.unit == "GPU-hours" and math.isclose(account.total, 32.0)
    assert math.isclose(sum(account.hours.values()), account.total)
    assert account.queue_s == 600 + 300
    assert account.cost == pytest.approx(32 * 25) and account.net(account.cost) == pytest.approx(32 * 25 * 0.3)
    assert sum(account.cost_by_phase().values()) == pytest.approx(32 * 25)
    assert account.trained == pytest.approx(3000 / 3600)
    write_goodput(run.path, account)
    written = json.loads((run.path / "goodput.json").read_text())
    assert written["total"] == 32.0 and written["segments"][1]["restart"] == 1 and "not asked" in written["not_compared"]
    assert (run.path / "goodput.json").stat().st_mode & 0o777 == 0o600


def test_a_job_that_waits_again_adds_to_the_queue(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT - 60)
    run.start(NIGHT, NIGHT + 100, verdict="requeued")
    waiting = Queue({481411: Queued(481411, "PENDING", "Resources")})
    assert goodput(run.path, now=NIGHT + 400, queue=waiting).queue_s == 60 + 300


def test_a_run_on_cpus_counts_node_hours(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.start(NIGHT, NIGHT + 3600, gpus_per_node=0, verdict="finished")
    account = goodput(run.path, now=NIGHT + 9000)
    assert account.unit == "node-hours" and account.total == 2.0


def test_slurms_accounting_is_compared_start_by_start(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.job(at=NIGHT)
    run.start(NIGHT + 1, NIGHT + 199, verdict="requeued")
    run.start(NIGHT + 300, NIGHT + 400, restart=1, verdict="finished")
    rows = (Accounted(481411, "PREEMPTED", NIGHT, NIGHT + 200, 200.0, 16), Accounted(481411, "COMPLETED", NIGHT + 295, NIGHT + 405, 110.0, 16))
    account = goodput(run.path, now=NIGHT + 1000, accounts=Accounts(rows))
    assert account.note == ""
    assert [(segment.restart, difference) for segment, difference in differences(account)] == [(0, -2.0), (1, -10.0)]
    assert [agrees(segment) for segment in account.segments] == [True, False]


def test_projects_and_months(tmp_path: Path) -> None:
    december = month_bounds("2026-12")[0]
    for name, project, began in (("a-111111", "oncology", december - 1800), ("b-222222", "speech", december + 60)):
        run = WrittenRun(tmp_path, name, project=project)
        run.start(began, began + 3600, verdict="finished")
    accounts = [goodput(tmp_path / name, now=december + 9000) for name in ("a-111111", "b-222222")]
    found = [(total.month, total.project, round(total.total, 6), total.cost, round(total.net, 6)) for total in totals(accounts)]
    assert found == [
        ("2026-12", "oncology", 8.0, 200.0, 60.0),
        ("2026-12", "speech", 16.0, 400.0, 120.0),
        ("2026-11", "oncology", 8.0, 200.0, 60.0),
    ]
    assert [total.month for total in totals(accounts, project="oncology", month="2026-11")] == ["2026-11"]
    with pytest.raises(UserError, match=r"--month 11\.2026: expected a month such as 2026-11"):
        month_bounds("11.2026")


def test_without_a_site_file_there_is_no_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = WrittenRun(tmp_path, site="name: none\n")
    run.start(NIGHT, NIGHT + 3600, verdict="finished")
    account = goodput(run.path, now=NIGHT + 9000)
    assert account.cost is None and "no price_per_gpu_hour" in account.prices.note
    (total,) = totals([account])
    assert total.unpriced == 1 and total.cost == 0


def test_what_squeue_and_sacct_print() -> None:
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(NIGHT))
    queue = parse_queue(f"12|RUNNING|None|{began}|node[1-2]\n13|PENDING|Resources|N/A|\nnonsense\n")
    assert queue == {12: Queued(12, "RUNNING", "", NIGHT, "node[1-2]"), 13: Queued(13, "PENDING", "Resources")}
    rows = parse_accounts(
        f"12|PREEMPTED|{began}|{began}|0|billing=2,cpu=2,gres/gpu=4,node=2\n12|PENDING|Unknown|Unknown|0|\n12|RUNNING|{began}|Unknown|7|\n"
    )
    assert rows == (Accounted(12, "PREEMPTED", NIGHT, NIGHT, 0.0, 4), Accounted(12, "RUNNING", NIGHT, None, 7.0, 0))
