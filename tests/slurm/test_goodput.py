"""A job whose phases were planted, killed once in the middle: goodput finds each of them, and Slurm's accounting agrees.

The short form takes a minute of the cluster. The long one, of 200 s and more:  AISC_GOODPUT=long pytest tests/slurm/test_goodput.py
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from configs.jsonlines import read_lines
from configs.runfolder import read_json
from launch.goodput import agrees, differences, goodput
from launch.live import Accounts, parse_accounts
from launch.segments import Segment
from tests.slurm.cluster import Cluster
from tests.slurm.processes import wait_until
from tests.slurm.survival import Bench, Run

STEPS, SAVE_EVERY, EVALUATE_EVERY, KILLED_AT = 12, 6, 6, 9
SHORT = {"start-up": 2.0, "prepare": 3.0, "compile": 3.0, "train": 0.6, "evaluate": 3.0, "save": 2.0, "tail": 3.0}
LONG = {"start-up": 6.0, "prepare": 15.0, "compile": 20.0, "train": 4.0, "evaluate": 12.0, "save": 8.0, "tail": 10.0}
PLANTED = LONG if os.environ.get("AISC_GOODPUT") == "long" else SHORT


@pytest.fixture(scope="module")
def run(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two nodes of one rank and two GPUs each; rank 0 is killed after step 9, and the job goes on in a second start."""
    bench = Bench(slurm, tmp_path_factory.mktemp("goodput"))
    site = bench.folder / "site.yaml"
    site.write_text(
        "name: test\ndefault_partition: main\npartitions:\n  main: {gpu: fake, gpu_memory_gb: 80, gpus_per_node: 4, price_per_gpu_hour: 20}\n"
        "price: {subsidy: 0.75, source: a test}\n"
    )
    planted = " ".join(f"{phase}={seconds}" for phase, seconds in PLANTED.items())
    run = bench.launch(
        "planted",
        2,
        1,
        "cluster.gpus_per_node=2",
        f"cluster.site={site}",
        f'cluster.setup=["AISC=({sys.executable} -m tests.slurm.planted)"]',
        f"cluster.environment={{AISC_PLANT: '{planted}'}}",
        "cluster.check_nodes=false",
        f"training.duration={STEPS} steps",
        "training.min_steps=0",
        f"checkpoint.every={SAVE_EVERY} steps",
        f"evaluation.every={EVALUATE_EVERY} steps",
        "run.project=oncology",
    )
    attempt = run.wait_for("step", past_step=KILLED_AT - 1)
    assert attempt is not None
    os.kill((attempt.read_start() or {})["pid"], signal.SIGKILL)
    (run.folder.path / "killed.json").write_text(json.dumps(time.time()))
    run.finish()
    wait_until(lambda: len(accounts_of(run)) == 2 and all(row.ended for row in accounts_of(run)), 60.0, lambda: str(accounts_of(run)))
    return run


def accounts_of(run: Run):  # type: ignore[no-untyped-def]
    """What sacct has of the run's job."""
    fields = "--format=JobIDRaw,State,Start,End,ElapsedRaw,AllocTRES"
    return parse_accounts(run.cluster.call("sacct", "-X", "-D", "-P", "-n", fields, f"--jobs={run.job_id}"))


def segments(run: Run) -> list[Segment]:
    """The starts of the run by files alone."""
    return list(goodput(run.folder.path, now=0.0).segments)


def pauses(run: Run) -> list[list[dict[str, Any]]]:
    """Returns the pauses that rank 0 took, by start."""
    found: dict[int, list[dict[str, Any]]] = {}
    for line in read_lines(run.folder.path / "planted.jsonl"):
        found.setdefault(line["pid"], []).append(line)
    return list(found.values())


def labelled(segment: Segment, began: float, ended: float) -> set[str]:
    """Returns what the goodput calls the time between two moments; its times have milliseconds."""
    return {part.phase for part in segment.intervals if part.began < ended - 0.002 and part.ended > began + 0.002}


def test_every_planted_second_has_its_label(run: Run) -> None:
    first, second = pauses(run)
    # Evaluated before step 1 and after step 6, where it was saved as well; step 10 was under way at the kill.
    start = ["prepare", "start-up", "evaluate", "compile", *["train"] * 5, "evaluate", "save", *["train"] * 3]
    # From step 6: step 7 is the first of this process, 8 and 9 had been made, 10 to 12 are new; evaluated and saved at 12.
    again = ["prepare", "start-up", "compile", "redone", "redone", "train", "train", "train", "evaluate", "save", "tail"]
    for segment, planted, expected in zip(segments(run), (first, second), (start, again), strict=True):
        assert [pause["phase"].replace("redone", "train") for pause in planted] == [name.replace("redone", "train") for name in expected]
        found = [labelled(segment, pause["began"], pause["ended"]) for pause in planted]
        assert found == [{name} for name in expected]
        seconds = segment.seconds()
        for phase in set(expected):
            sum_s = sum(pause["ended"] - pause["began"] for pause, name in zip(planted, expected, strict=True) if name == phase)
            assert sum_s - 0.1 <= seconds[phase], (phase, sum_s, seconds)
        print(f"start {segment.restart}: " + ", ".join(f"{phase} {value:.1f} s" for phase, value in seconds.items()))


def test_what_the_kill_cost_is_lost(run: Run) -> None:
    killed = json.loads((run.folder.path / "killed.json").read_text())
    first, second = segments(run)
    assert labelled(first, killed, killed + 0.5) == {"lost"}
    assert first.intervals[-1].phase in ("lost", "tail") and "lost" not in second.seconds()
    assert "redone" in second.seconds() and "redone" not in first.seconds()


def test_hours_agree_with_slurms_accounting(run: Run) -> None:
    rows = accounts_of(run)
    account = goodput(run.folder.path, now=0.0, accounts=Accounts(rows))
    assert [segment.ended_by for segment in account.segments] == ["job", "job"]
    assert len(differences(account)) == 2
    assert all(agrees(segment) for segment in account.segments), [(s.elapsed_s, s.slurm_s) for s in account.segments]
    assert [row.gpus for row in rows] == [segment.gpus for segment in account.segments] == [4, 4]
    # The bound: the sum of all phases against sacct's elapsed x GPUs.
    by_slurm = sum(row.elapsed_s * row.gpus for row in rows)
    ours = sum(account.hours.values()) * 3600
    assert abs(ours - by_slurm) <= sum(4 * max(0.01 * row.elapsed_s, 2.0) for row in rows)
    if PLANTED is LONG:
        assert sum(row.elapsed_s for row in rows) >= 200
    print(f"phases {ours:.1f} GPU-s, sacct {by_slurm:.1f} GPU-s; by start {[round(d, 2) for _, d in differences(account)]} s")


def test_the_screen_the_file_and_the_figure(run: Run, tmp_path: Path) -> None:
    svg = tmp_path / "goodput.svg"
    text = run.cluster.call(
        sys.executable, "-m", "cli.main", "runs", "goodput", str(run.folder.path), "--svg", str(svg), cwd=tmp_path
    )
    assert re.search(r"GPU-hours in 2 starts, waited \d+ s in the queue", text), text
    assert re.search(r"sacct: 2 of 2 starts compared, [+-]\d\.\d s in all; all within 1 % or 2 s", text), text
    assert "prices: a test, subsidy 75 %" in text
    assert svg.read_text().startswith("<svg")
    written = read_json(run.folder.path / "goodput.json")
    assert written is not None and written["project"] == "oncology" and written["net"] == pytest.approx(0.25 * written["cost"])
    assert "<h2>Goodput</h2>" in (run.folder.path / "report.html").read_text()
    month = run.cluster.call(sys.executable, "-m", "cli.main", "runs", "goodput", "--project", "oncology", f"run.dir={run.parent}")
    assert re.search(r"oncology +20\d\d-\d\d +1 ", month), month


def test_the_job_by_its_number_and_one_that_nobody_knows(run: Run) -> None:
    text = run.cluster.call(sys.executable, "-m", "cli.main", "runs", "show", str(run.job_id), f"run.dir={run.parent}")
    assert text.startswith(f"{run.folder.name}   done, eval_loss ")
    with pytest.raises(RuntimeError, match="no run in .* has a job of this number; what Slurm itself remembers: sacct -j 999999"):
        run.cluster.call(sys.executable, "-m", "cli.main", "runs", "show", "999999", f"run.dir={run.parent}")
    assert json.loads((run.folder.path / "goodput.json").read_text())["segments"][0]["attempts"] == [1]
