"""A run as a chain of jobs: data prepared on a CPU node, trained, scored, exported; a stage that fails ends the chain."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.runfolder import RunFolder, read_json
from launch.records import Job, read_jobs, read_starts
from tests.kills.lab import make_chats, make_tokenizer
from tests.slurm.cluster import ROOT, Cluster
from tests.slurm.processes import wait_until

STAGES = ["prepare", "train", "eval", "export"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, good chats, and chats with a row that cannot be used."""
    folder = tmp_path_factory.mktemp("stages")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 80))
    rows = (folder / "chats.jsonl").read_text().splitlines()
    (folder / "bad.jsonl").write_text("\n".join([*rows[:20], '{"messages": [{"role": "asistant", "content": "x"}]}']) + "\n")
    return folder


@pytest.fixture(scope="module")
def launched(slurm: Cluster, place: Path) -> dict[str, tuple[RunFolder, str]]:
    """Both runs, submitted one after the other, and what `aisc launch` printed."""
    return {name: launch(slurm, place, name) for name in ("chats", "bad")}


def launch(slurm: Cluster, place: Path, data: str, *options: str) -> tuple[RunFolder, str]:
    """Launches a tiny run on `data`.jsonl with all four stages."""
    sections = {
        "model": {"preset": "tiny_llama", "tokenizer": str(place / "tokenizer")},
        "data": {"train": str(place / f"{data}.jsonl"), "validation": "10%", "sequence_length": 64, "store": str(place / "stores")},
        "training": {"duration": "6 steps", "min_steps": 0, "global_batch_size": 4, "precision": "fp32"},
        "evaluation": {"replies": 0},
        "engine": {"backend": "gloo", "name": "ddp"},
        "cluster": {
            "name": "slurm",
            "gpus_per_node": 1,
            "time": "10 min",
            "partition": "main",
            "cpu_partition": "cpu",
            "check_nodes": False,
            "stages": STAGES,
            "directives": {"comment": "chain-of-jobs"},
            "stage_to": str(place / "local"),
        },
        "run": {"dir": str(place / "runs"), "name": data},
    }
    yaml = place / f"{data}.yaml"
    yaml.write_text(json.dumps(sections))
    command = [str(Path(sys.executable).with_name("aisc")), "launch", str(yaml), *options]
    done = subprocess.run(command, cwd=ROOT, env=slurm.env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (place / "runs").glob(f"{data}-*")
    return RunFolder(run), done.stdout


def ended(slurm: Cluster, jobs: list[Job]) -> Callable[[], bool]:
    """Returns whether Slurm has come to an end with every one of `jobs`."""
    return lambda: all(slurm.job(job.job_id).state in ("COMPLETED", "FAILED", "CANCELLED") for job in jobs)


def outputs(slurm: Cluster, jobs: list[Job]) -> str:
    """Returns what the jobs have printed."""
    return "\n".join(f"{job.stage} {(view := slurm.job(job.job_id)).state}:\n{view.output}" for job in jobs)


def test_a_chain_runs_to_its_end(slurm: Cluster, place: Path, launched: dict[str, tuple[RunFolder, str]]) -> None:
    run, said = launched["chats"]
    jobs = read_jobs(run.path)
    assert [job.stage for job in jobs] == STAGES
    assert [job.after for job in jobs] == [None, *(job.job_id for job in jobs[:-1])]
    assert "prepare (cpu) -> train (gpu) -> eval (gpu) -> export (cpu)" in said
    wait_until(ended(slurm, jobs), 1500.0, lambda: outputs(slurm, jobs))
    assert [slurm.job(job.job_id).state for job in jobs] == ["COMPLETED"] * 4, outputs(slurm, jobs)
    starts = {start.stage: start for start in read_starts(run.path)}
    assert {start.verdict for start in starts.values()} == {"finished"}
    assert starts["prepare"].gpus_per_node == 0 and starts["train"].gpus_per_node == 1
    assert slurm.job(jobs[0].job_id).fields["Partition"] == "cpu" and slurm.job(jobs[2].job_id).fields["Partition"] == "main"
    assert slurm.job(jobs[0].job_id).fields["Comment"] == "chain-of-jobs"
    assert re.search(r"node\d: staged store, ", (run.path / "jobs" / f"{jobs[1].job_id}.out").read_text())
    assert not list((place / "local").iterdir()), "copies are removed at the end"
    start = run.attempts()[0].read_start()
    assert start is not None and Path(start["store_folder"]).parent == place / "stores"
    result, scores = read_json(run.result_path), read_json(run.path / "eval" / "model.json")
    assert result is not None and scores is not None
    assert scores["tasks"]["held_out"]["metrics"]["loss"]["value"] == pytest.approx(result["eval_loss"], rel=1e-5)
    assert (run.path / "export" / "model.safetensors").is_file()
    assert {start.stage: start.verdict for start in read_starts(run.path)} == dict.fromkeys(("prepare", "train", "eval", "export"), "finished")


def test_no_node_waits_for_data_that_lies_ready(slurm: Cluster, place: Path, launched: dict[str, tuple[RunFolder, str]]) -> None:
    wait_until(ended(slurm, read_jobs(launched["chats"][0].path)), 1500.0, lambda: "the chain has not ended")
    command = [str(Path(sys.executable).with_name("aisc")), "launch", str(place / "chats.yaml"), "--new", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, env=slurm.env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "train (gpu) -> eval (gpu) -> export (cpu)" in done.stdout and "prepare" not in done.stdout


def test_a_failed_prepare_cancels_what_follows_and_says_so(slurm: Cluster, launched: dict[str, tuple[RunFolder, str]]) -> None:
    run, _ = launched["bad"]
    jobs = read_jobs(run.path)
    wait_until(ended(slurm, jobs), 1500.0, lambda: outputs(slurm, jobs))
    assert [slurm.job(job.job_id).state for job in jobs] == ["FAILED", "CANCELLED", "CANCELLED", "CANCELLED"], outputs(slurm, jobs)
    starts = {start.stage: start for start in read_starts(run.path)}
    assert starts["prepare"].verdict == "failed" and starts["prepare"].code == 2
    assert "1 of 21 rows" in starts["prepare"].cause and "asistant" in starts["prepare"].cause
    for stage in ("train", "eval", "export"):
        assert starts[stage].verdict == "cancelled"
        assert starts[stage].cause.startswith(f"prepare (job {jobs[0].job_id}) failed: 1 of 21 rows")
    assert "train (job" in slurm.job(jobs[0].job_id).output and "is cancelled" in slurm.job(jobs[0].job_id).output
    assert not run.attempts(), "nothing was trained"


def test_scripts_say_what_they_do(launched: dict[str, tuple[RunFolder, str]]) -> None:
    text = (launched["chats"][0].path / "prepare.sbatch").read_text()
    assert "#SBATCH --partition=cpu" in text and "gpu" not in text.replace("launch", "").lower().split("setting")[0].split("set -u")[0]
    assert re.search(r"^# chats-\w{6}: prepare: reads, tokenises and packs the data", text, re.MULTILINE)


