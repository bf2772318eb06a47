"""A sweep's folder: outcomes from run folders, statistics over seeds, the best as a file, scripts of its jobs."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from configs import atomic, compose
from configs.facts import Shape
from configs.runfolder import RunFolder
from launch.job import queue_name
from launch.records import JobStart, write_start
from launch.slurm import Launch
from launch.sweep import (
    PRUNED_FILE,
    REFUSED_FILE,
    Sweep,
    SweepInfo,
    best_point,
    create,
    find_sweep,
    outcomes,
    settings_of,
    summarize_sweep,
)
from launch.sweep_best import best_yaml
from launch.sweep_grid import Axis, Point, grid_points
from launch.sweep_script import render_array, render_search, spell_array

AXES = (Axis("optimizer.lr", ("5e-5", "1e-4")), Axis("training.seed", ("1", "2", "3")))
YAML = "# mine\nmodel: tiny_llama\ndata: chats.jsonl\nadapter: {preset: lora, rank: 16}\nrun: {project: oncology}\n"


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A grid of 2 rates x 3 seeds; nothing has run."""
    info = SweepInfo(
        stem="onc_lr", kind="grid", where="slurm", folder="/", words=["model.tokenizer=/病人/tok", "optimizer=adamw"], axes=[], throttle=2
    )
    return create(tmp_path / "onc_lr-2b81f0", info, YAML, [(point, "model: {}\n") for point in grid_points(AXES)])


def end(run: RunFolder, state: str, loss: float | None = None, cause: str = "", **fields: Any) -> None:
    """Leaves an attempt that ended so."""
    attempt = run.claim()
    attempt.write_start({"total_steps": 20}, None)
    atomic.write_file(attempt.metrics_path, '{"step": 20, "loss": 1.0}\n')
    if loss is not None:
        atomic.write_json(run.result_path, {"eval_loss": loss})
    attempt.finish(state, {"done": 0, "stopped": 75}.get(state, 1), cause, **fields)


def test_a_folder_holds_its_points(sweep: Sweep) -> None:
    assert sorted(path.name for path in sweep.path.iterdir()) == [
        *(f"onc_lr-2b81f0-{number}" for number in range(6)),
        "points.txt",
        "run.yaml",
        "sweep.json",
    ]
    assert sweep.points() == grid_points(AXES)
    line = (sweep.path / "points.txt").read_text().splitlines()[4]
    assert line == f"4\t{sweep.path}/onc_lr-2b81f0-4\toptimizer.lr=1e-4 training.seed=2"
    for text in ("onc_lr-2b81f0", "2b81f0", "onc_lr", str(sweep.path)):
        assert find_sweep(text, sweep.path.parent) == sweep
    assert find_sweep("other", sweep.path.parent) is None
    create(sweep.path, sweep.info(), None, [])
    assert len(sweep.points()) == 6, "what is there is kept"


def test_states_of_points(sweep: Sweep) -> None:
    start = JobStart(7, "train", 0, 1.0, ["n1"], 0, verdict="failed", cause="exit code 2")
    end(sweep.run_of(0), "done", 0.5)
    end(sweep.run_of(1), "failed", cause="loss nan is not finite\nmore")
    atomic.write_json(sweep.run_of(2).path / REFUSED_FILE, {"code": 2, "cause": "no such file"})
    write_start(sweep.run_of(3).path, start)
    end(sweep.run_of(4), "stopped", cause="asked to stop")
    atomic.write_file(sweep.run_of(4).path / PRUNED_FILE, "")
    assert [(one.state, one.eval_loss) for one in outcomes(sweep)] == [
        ("done", 0.5),
        ("failed", None),
        ("failed", None),
        ("failed", None),
        ("pruned", None),
        ("waiting", None),
    ]
    summary = summarize_sweep(sweep.path)
    assert (summary.name, summary.num_points, summary.state) == ("onc_lr-2b81f0", 6, "1 done, 1 waiting, 1 pruned, 3 failed")
    assert (summary.best, summary.step, summary.total_steps) == (0.5, 20, 20)


def test_statistics_over_seeds_and_the_failure_with_its_seed(sweep: Sweep) -> None:
    losses = {0: 0.883, 1: 0.879, 3: 0.868, 4: 0.872, 5: 0.876}
    for number, loss in losses.items():
        end(sweep.run_of(number), "done", loss)
    end(sweep.run_of(2), "failed", cause="node05 lost\nsecond line")
    first, second = settings_of(outcomes(sweep))
    assert first.values == {"optimizer.lr": "1e-4"} and second.values == {"optimizer.lr": "5e-5"}
    assert (len(first.losses), first.best, first.failed) == (3, 0.868, [])
    assert first.mean == pytest.approx(0.872) and first.sd == pytest.approx(0.004)
    assert second.sd == pytest.approx(statistics.stdev([0.883, 0.879]))
    assert second.failed == ["seed 3: node05 lost"]


def test_one_lucky_seed_does_not_choose_the_setting(sweep: Sweep) -> None:
    for number, loss in {0: 0.5, 1: 0.99, 2: 0.98, 3: 0.72, 4: 0.7, 5: 0.71}.items():
        end(sweep.run_of(number), "done", loss)
    best = best_point(outcomes(sweep))
    assert best is not None and best.point.values == {"optimizer.lr": "1e-4", "training.seed": "2"}
    assert best_point([]) is None


def test_best_yaml_is_the_user_s_with_what_was_added(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end(sweep.run_of(4), "done", 0.868)
    best = best_point(outcomes(sweep))
    assert best is not None
    path = tmp_path / "best.yaml"
    path.write_text(best_yaml(sweep, sweep.info(), best), encoding="utf-8")
    assert path.read_text(encoding="utf-8").startswith("# Best of onc_lr-2b81f0: point 4, optimizer.lr=1e-4 training.seed=2, eval_loss 0.8680.\n")
    loaded = compose.load([str(path)])
    given = compose.load([str(sweep.yaml_path), *sweep.info().words, "optimizer.lr=1e-4", "training.seed=2"])
    given.config.run.name = "onc_lr"
    assert compose.freeze(loaded.config) == compose.freeze(given.config)
    assert loaded.stem == "onc_lr" and loaded.config.model.tokenizer == "/病人/tok" and loaded.config.run.project == "oncology"


@pytest.mark.parametrize(
    ("numbers", "text"), [(range(6), "0-5%2"), ([3], "3%2"), ([5, 1, 4], "1,4-5%2"), ([0, 2, 4], "0,2,4%2")]
)
def test_array_numbers(numbers: list[int], text: str) -> None:
    assert spell_array(numbers, 2) == text


def launch_of(sweep: Sweep) -> Launch:
    return Launch(
        name="x",
        run=sweep.run_of(0).path,
        folder=Path("/work"),
        command=("/env/bin/aisc",),
        shape=Shape(2, 4, 4, 1),
        seconds=3600,
        options={"partition": "gpu", "mem": "9G"},
    )


def test_the_array_s_script(sweep: Sweep) -> None:
    lines = render_array(launch_of(sweep), sweep, 6, 2).splitlines()
    assert "#SBATCH --array=0-5%2" in lines and f"#SBATCH --output={sweep.path}/jobs/%A_%a.out" in lines
    assert f"#SBATCH --job-name={sweep.name}" in lines and "#SBATCH --requeue" in lines
    reads = next(number for number, line in enumerate(lines) if line.startswith("AISC_RUN=$(awk"))
    begins = next(number for number, line in enumerate(lines) if "job begin" in line)
    assert reads < begins and lines[reads].endswith(f"{sweep.path}/points.txt)")


def test_the_controller_s_script_asks_for_one_core(sweep: Sweep) -> None:
    text = render_search(launch_of(sweep), sweep)
    assert "--nodes=1\n" in text and "--ntasks-per-node=1\n" in text and "--cpus-per-task=1\n" in text
    assert "gpus" not in text and "--mem" not in text and 'job search "$AISC_RUN"' in text


def test_points_are_written_as_plain_json(sweep: Sweep) -> None:
    values = json.loads((sweep.run_of(4).path / "point.json").read_text())
    assert values == {"number": 4, "values": {"optimizer.lr": "1e-4", "training.seed": "2"}}
    assert Point(**values) == grid_points(AXES)[4]


def test_the_run_s_own_words_are_taken_before_the_job_s_verdict(sweep: Sweep) -> None:
    verdict = "exit code 2 before the run could begin; the job's output says why"
    write_start(sweep.run_of(5).path, JobStart(7, "train", 0, 1.0, ["n1"], 0, verdict="failed", cause=verdict))
    (sweep.path / "jobs").mkdir()
    said = f"error: data.train=gone.jsonl: no such file\nsrun: error: node1: task 0: Exited with exit code 2\nfailed: {verdict}\n"
    (sweep.path / "jobs" / "2_5.out").write_text(said)
    assert outcomes(sweep)[5].cause == "data.train=gone.jsonl: no such file"


def test_scontrol_is_told_one_element_of_an_array() -> None:
    """The last element has the array's number as its own: requeued by that, all elements would be."""
    assert queue_name({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "5"}) == "7_5"
    assert queue_name({"SLURM_JOB_ID": "7"}) == "7"
