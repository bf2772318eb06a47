"""`aisc prove`: planted bugs are named, sound configurations pass, input that cannot be used is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from configs.frontdoor import preset_names
from data_pipelines.corpora import hkcancor
from tests.kills.lab import make_chats, make_tokenizer
from tests.prove.bugs import BUGS, is_named
from tests.prove.shipped import EXPERIMENTS
from tests.scenario import run_scenario
from tests.slurm.processes import wait_until
from train.prove.prove import Proof
from train.prove.verdict import Row

ROOT = Path(__file__).parents[2]
DEMO = ROOT / ".cache" / "demo"
SIMPLE = ["model=tiny_llama", "engine=ddp"]
TRIES: list[tuple[str, list[str]]] = [
    ("", SIMPLE),
    ("normalised_by_ranks", SIMPLE),
    ("frozen_layer", SIMPLE),
    ("applied_ignored", SIMPLE),
    ("", ["model=tiny_deepseek_v3", "adapter=lora", "engine=fsdp2"]),
]


@pytest.fixture(scope="module")
def tries() -> list[dict[str, Any]]:
    """What each try gave, from a process that forks its ranks: pytest's own may have threads."""
    return run_scenario("tests.prove.bugs", json.dumps(TRIES))


@pytest.mark.parametrize("number", [n for n, (bug, _) in enumerate(TRIES) if bug], ids=lambda n: TRIES[n][0])
def test_a_planted_bug_is_named(tries: list[dict[str, Any]], number: int) -> None:
    assert is_named(TRIES[number][0], tries[number]), tries[number]["screen"]


@pytest.mark.parametrize("number", [n for n, (bug, _) in enumerate(TRIES) if not bug], ids=lambda n: " ".join(TRIES[n][1]))
def test_a_sound_configuration_passes(tries: list[dict[str, Any]], number: int) -> None:
    found = tries[number]
    assert found["code"] == 0, found["screen"]
    assert "BROKEN" not in found["screen"] and " hold   " in found["screen"]
    assert "around steps that are not finite" in found["screen"] and "nothing moved" in found["screen"]


def test_at_least_ten_bugs_are_planted_in_soak() -> None:
    assert len(BUGS) >= 10


def test_a_shipped_experiment_passes_in_reduced_form(tmp_path: Path) -> None:
    """From a shell, with the vocabulary of its model."""
    if not (DEMO / "hkcancor" / "about.json").is_file():
        hkcancor.build(DEMO / "hkcancor", DEMO / "smollm2", ROOT / ".cache" / "packages")
    report = tmp_path / "proof.json"
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "prove", "experiment=demo", "--reduced", "--json", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    proof = json.loads(report.read_text())
    assert proof["holds"] and proof["vocabulary"] == 49152 and proof["hidden"] == 64
    assert proof["curves"]["plain"]["runs"]["sgd"]["loss"][-1] < proof["curves"]["plain"]["runs"]["sgd"]["loss"][0]
    assert all(row["is_ok"] for row in proof["rows"])
    assert done.stdout.splitlines()[-1].startswith("all ")


@pytest.fixture(scope="module")
def shipped() -> dict[str, dict[str, Any]]:
    """What the experiments of CI gave, by name; soak takes all of them."""
    return {one["experiment"]: one for one in run_scenario("tests.prove.shipped", "small")}


@pytest.mark.parametrize(
    ("experiment", "stages"),
    [("oncology_sft", []), ("hkgai_chain", ["cpt", "sft", "dpo"]), ("oncology_chain_qwen3", ["sft", "dpo"])],
)
def test_every_stage_of_a_shipped_experiment_passes(shipped: dict[str, Any], experiment: str, stages: list[str]) -> None:
    screen = shipped[experiment]["screen"]
    assert shipped[experiment]["code"] == 0 and "BROKEN" not in screen, screen
    lines = screen.splitlines()
    assert sum(line.startswith("all ") for line in lines) == max(1, len(stages))
    assert [line.split()[4] for line in lines if line.startswith("stage ")] == stages
    assert not stages or lines[-1] == f"{experiment}: {', '.join(stages)} hold"


def test_soak_takes_every_shipped_experiment() -> None:
    assert set(EXPERIMENTS) == set(preset_names("experiment"))


def proof(*, holds: bool) -> Proof:
    name = "zero2, 2 ranks, micro-batches of one row"
    figures, sentence = {"loss": 0.5, "grad_norm": 0.5}, "" if holds else f"{name}: half"
    row = Row(name, "adamw", figures, "20 tensors move, no other does", bound=1e-5, is_ok=holds, sentence=sentence)
    numbers = dict.fromkeys(("layers", "hidden", "vocabulary", "documents", "tokens", "supervised", "packed_rows", "row_tokens"), 2)
    about = {**numbers, "model": "m", "kind": "llama", "is_reduced": True, "adapter": "none", "steps": 3, "max_grad_norm": 1.0}
    about |= {"engine": "ddp", "engine_reason": "no GPU"}
    return Proof([row], {**about, "rates": {}, "device": "cpu"}, {}, 1.0)


def test_a_chain_is_broken_when_one_of_its_stages_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tokenizer(tmp_path / "tokenizer", make_chats(tmp_path / "a.jsonl", 10))
    (tmp_path / "c.yaml").write_text(
        f"model: {{preset: tiny_llama, tokenizer: {tmp_path}/tokenizer}}\ndata: {tmp_path}/a.jsonl\n"
        "stages: {one: {objective: sft}, two: {objective: cpt}, judge: {objective: reward}}\n"
    )
    monkeypatch.setattr("cli.prove_chain.run", lambda screen, asked: proof(holds=asked.config.objective.name == "sft"))
    report = tmp_path / "proof.json"
    assert main(["prove", str(tmp_path / "c.yaml"), "--reduced", "--json", str(report)]) == 1
    said = capsys.readouterr().out
    assert "stage 3 of 3  judge   objective=reward: has no plain loop, not compared" in said
    assert said.count("  engine   ddp (auto: no GPU; engine.name=NAME proves that of your nodes)") == 2
    assert said.splitlines()[-1] == "c: broken in two; not compared: judge"
    assert max(len(line) for line in said.splitlines() if "BROKEN" not in line) <= 80
    found = json.loads(report.read_text())
    assert not found["holds"] and found["stages"]["one"]["holds"] and found["not_compared"] == ["judge"]


def test_every_problem_of_a_chain_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment=hkgai_chain_deepseek", "model.tokenizer=nowhere", "stages.sft.data.train=nothing.jsonl", "stages.dpo.objective=reward"]
    assert main(["prove", *words, "--reduced"]) == 2
    said = capsys.readouterr().err
    assert said.count("model.tokenizer=nowhere: no such folder") == 1
    assert "data.train: missing; give the training file: data=FILE   (stage cpt)" in said
    assert "data.train=nothing.jsonl: no such file or folder   (stage sft)" in said


def test_help_and_refusals_come_without_torch(tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "tokenizer", make_chats(tmp_path / "chats.jsonl", 10))
    code = (
        "import sys; from cli.main import main; code = main(sys.argv[1:]); "
        "print(code, [name for name in ('torch', 'transformers', 'train') if name in sys.modules])"
    )
    for arguments, wanted in (
        (["prove", "--help"], 0),
        (["prove", "model=tiny_llama", "data=nowhere.jsonl", f"model.tokenizer={tmp_path / 'tokenizer'}"], 2),
        (["prove", "model=tiny_llama", "--steps", "one"], 2),
        (["prove", "--reducd"], 2),
        (["prove", "experiment=demo", "--reduced", "--json", str(tmp_path / "no" / "proof.json")], 2),
        (["prove", "experiment=demo", "--reduced", "objective=reward"], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.stdout.splitlines()[-1].startswith(f"{wanted} ["), done.stderr
        assert "'torch'" not in done.stdout and "'transformers'" not in done.stdout


def test_data_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "tokenizer", make_chats(tmp_path / "chats.jsonl", 10))
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "user", "content": "no answer"}]}\n')
    inputs = [f"model.tokenizer={tmp_path / 'tokenizer'}", f"data={tmp_path / 'bad.jsonl'}"]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "prove", "model=tiny_llama", "--reduced", *inputs],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 2 and "no assistant turn" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_proof_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    """By SIGTERM, as a queue or `timeout` ends it: no rank goes on, no piece of the data stays."""
    make_tokenizer(tmp_path / "tokenizer", make_chats(tmp_path / "chats.jsonl", 10))
    inputs = [f"model.tokenizer={tmp_path / 'tokenizer'}", f"data={tmp_path / 'chats.jsonl'}"]
    place = tmp_path / "tmp"
    place.mkdir()
    command = [sys.executable, "-m", "cli.main", "prove", "model=tiny_llama", "--reduced", *inputs]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(place)}, stderr=subprocess.PIPE, text=True) as process:
        ranks: list[int] = []

        def is_under_way() -> bool:
            ranks[:] = children_of(process.pid)
            return bool(ranks) and any(place.glob("aisc-prove-*/alone/train/ids.npy"))

        wait_until(is_under_way, 300, lambda: str(process.poll()))
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said == "interrupted\n"
    assert list(place.glob("aisc-*")) == []
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]


def children_of(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_help_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(option in said for option in ("--reduced", "--steps N", "--ranks N", "--json FILE"))
