"""`aisc train ... -m` on this machine: points one after another, one that fails, its retry; a search; what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.configured import load_checked
from cli.main import main
from cli.sweep_plan import make_plan, write_sweep
from configs import compose
from launch.sweep import all_sweeps, outcomes
from tests.kills.lab import make_chats, make_tokenizer


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a tokenizer, chats, and a YAML of 20 steps of a tiny model."""
    make_tokenizer(tmp_path / "tokenizer", make_chats(tmp_path / "病人.jsonl", 60))
    sections = {
        "model": {"preset": "tiny_llama", "tokenizer": "tokenizer"},
        "data": {"train": "病人.jsonl", "sequence_length": 64, "workers": 1},
        "training": {"duration": "20 steps", "global_batch_size": 2, "micro_batch_size": 2},
        "evaluation": {"every": "10 steps", "replies": 0},
        "checkpoint": {"every": "end"},
        "guard": {"reference_check": False},
    }
    (tmp_path / "tiny.yaml").write_text(json.dumps(sections, ensure_ascii=False), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("AISC_RUNS", "AISC_STORES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def aisc(*arguments: str) -> tuple[int, str]:
    """Runs `aisc *arguments` in a process of its own: exit code, and what it said."""
    command = [str(Path(sys.executable).with_name("aisc")), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False)
    return done.returncode, done.stdout


def test_a_point_that_fails_does_not_end_the_others(place: Path) -> None:
    words = ("train", "tiny.yaml", "-m", "optimizer.lr=3e-3,1e-3", "training.seed=1,2")
    code, said = aisc(*words, "--dry-run")
    assert code == 0 and "tiny-" in said and "3  optimizer.lr=1e-3 training.seed=2" in said and not Path("runs").exists()
    sweep_name = said.split(":")[0]
    frozen = Path("runs") / sweep_name / f"{sweep_name}-0" / "launch.yaml"
    # The folder as the command makes it, before it runs anything; then one point's data is gone.
    write_sweep(make_plan(["tiny.yaml", *words[3:]], lambda given: load_checked(given, trains=True)), "local")
    whole = frozen.read_text(encoding="utf-8")
    frozen.write_text(whole.replace("病人.jsonl", "gone.jsonl"), encoding="utf-8")
    code, said = aisc(*words)
    assert code == 1, said
    (sweep,) = all_sweeps(Path("runs"))
    assert [one.state for one in outcomes(sweep)] == ["failed", "done", "done", "done"], said
    squeezed = "".join(said.split())  # the column is narrow, words are folded
    assert "4 runs, 3 done, 1 failed" in said and f"retry:aiscrunsretry{sweep.short}" in squeezed and "data.train=gone.jsonl:nosuchfileorfolder" in squeezed
    frozen.write_text(whole, encoding="utf-8")
    code, said = aisc("runs", "retry", sweep.short)
    assert code == 0 and "again point 0" in said and "4 runs, 4 done" in said, said
    assert [len(one.run.attempts()) for one in outcomes(sweep)] == [1, 1, 1, 1]
    assert (sweep.path / "compare.svg").read_text().startswith("<svg")
    best = compose.load([str(sweep.path / "best.yaml")])
    assert best.stem == "tiny" and best.config.data.train == "病人.jsonl"
    code, said = aisc("runs")
    assert code == 0 and f"{sweep.name} (4)" in said and "4 done" in said and f"{sweep.name}-1" not in said


def test_a_search_on_this_machine(place: Path) -> None:
    words = ("train", "tiny.yaml", "-m", "optimizer.lr=tag(log,interval(1e-4,1e-2))", "sweep.trials=2")
    code, said = aisc(*words)
    assert code == 0 and "2 trials, 2 done" in said, said
    (sweep,) = all_sweeps(Path("runs"))
    code, said = aisc(*words)
    assert code == 0 and len(sweep.points()) == 2, "the same command finds it done"


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("training.seed=1,x", "optimizer.lr=1e-4,y"), ["optimizer.lr=y: expected", "training.seed=x: expected"]),
        (("optimizer.lr=1e-4",), ["nothing is swept"]),
        (("optimizer.lr=interval(0,1)",), ["an interval has no list of points"]),
        (("optimizer.lr=1e-4,0.0001",), ["two points are one run: optimizer.lr=1e-4   and   optimizer.lr=0.0001"]),
        (("optimizer.lr=1e-4,1e-3", "optimizer.lr=1"), ["is given one value and swept too"]),
        (("optimizer.lr=1e-4,1e-3", "sweep.trials=-1"), ["sweep.trials=-1: expected 0 or more"]),
        (("optimizer.lr=interval(1e-5,1e-3)", "sweep.trials=2", "data.validation=none"), ["leaves no eval_loss to search by"]),
    ],
)
def test_what_is_wrong_with_any_point_is_told_before_anything_is_written(
    place: Path, words: tuple[str, ...], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "tiny.yaml", "-m", *words]) == 2
    said = capsys.readouterr().err
    assert all(line in said for line in lines), said
    assert not Path("runs").exists()


def test_a_problem_of_some_points_names_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tiny.yaml", "-m", "data.sequence_length=64,4096", "training.seed=1,2"]) == 2
    said = capsys.readouterr().err
    assert said.count("data.sequence_length=4096: the model has 2048 positions") == 1 and "(points 2, 3)" in said


def test_a_space_in_the_yaml(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.loads(Path("tiny.yaml").read_text(encoding="utf-8"))
    text["sweep"] = {"space": {"optimizer.lr": ["1e-4", "1e-3"], "training.seed": [1, 2]}}
    Path("space.yaml").write_text(json.dumps(text, ensure_ascii=False), encoding="utf-8")
    assert main(["train", "space.yaml", "-m", "training.seed=7", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 lr, 2 runs" in said and "1  optimizer.lr=1e-3" in said
