"""A chain on this machine: from rows to a released folder in one command, killed on the way, refused where it must be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cli.main import main
from configs.jsonlines import read_lines
from configs.runfolder import RunFolder, read_json
from launch.chain import ChainFolder, all_chains, verified_model
from tests.chains.lab import TIMEOUT_S, aisc, aisc_command, make_place, sections

SFT = {"objective": "sft", "data": {"train": "chats.jsonl"}}
DPO = {"objective": "dpo", "data": {"train": "pairs.jsonl"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, chats, pairs, `tiny.yaml`, a chain of four stages, and `short.yaml`, its training alone."""
    folder = tmp_path_factory.mktemp("chains")
    make_place(folder)
    adapter = {**SFT, "adapter": {"name": "lora", "rank": 4}}
    training = {"sft": SFT, "dpo": DPO}
    chains = {"tiny": {**training, "evaluate": {}, "release": {}}, "short": training, "adapter": {**training, "sft": adapter}}
    for name, stages in chains.items():
        values = sections(folder, folder / "runs", **stages)
        for stage in (values["stages"]["sft"], values["stages"]["dpo"]):
            stage["data"] = {"train": str(folder / stage["data"]["train"])}
        (folder / f"{name}.yaml").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def released(place: Path) -> tuple[ChainFolder, str]:
    """The chain, run to its end in one command, and what that printed."""
    code, said = aisc("train", str(place / "tiny.yaml"))
    assert code == 0, said
    (chain,) = all_chains(place / "runs")
    return chain, said


def head(run: RunFolder) -> str:
    """Returns the ledger's head of a finished run."""
    result = read_json(run.result_path)
    assert result is not None
    return str(result["ledger"])


def test_from_rows_to_a_released_folder_in_one_command(released: tuple[ChainFolder, str]) -> None:
    chain, said = released
    states = chain.info().stages
    assert [(one.name, one.state) for one in states] == [(name, "done") for name in ("sft", "dpo", "evaluate", "release")]
    assert f"{chain.name}: sft -> dpo -> evaluate -> release" in said and "4 of 4 stages done" in said
    sft, dpo = chain.run_of("sft"), chain.run_of("dpo")
    manifest = read_json(dpo.path / "manifest.json")
    assert manifest is not None
    weights = {str(sft.path / name): digest for name, digest in verified_model(sft).items()}
    assert manifest["weights"] and all(weights[name] == digest for name, digest in manifest["weights"].items())
    assert states[1].taken == states[0].made == verified_model(sft)
    assert states[2].made and states[3].made and list((dpo.path / "release").rglob("*.safetensors"))
    code, said = aisc("runs", "show", chain.short, f"run.dir={chain.path.parent}")
    assert code == 0 and "accuracy" in said and f"{dpo.path / 'release'}" in said
    code, said = aisc("runs", f"run.dir={chain.path.parent}")
    assert code == 0 and f"{chain.name} (4)" in said and "4/4" in said and dpo.name not in said


def test_the_same_command_finds_it_done_and_refuses_a_changed_model(
    place: Path, released: tuple[ChainFolder, str], capfd: pytest.CaptureFixture[str]
) -> None:
    chain, _ = released
    assert main(["train", str(place / "tiny.yaml")]) == 0
    assert capfd.readouterr().out.count("done before, verified") == 4
    path = chain.run_of("sft").path / "model" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert main(["train", str(place / "tiny.yaml")]) == 2
    finally:
        path.write_bytes(whole)
    said = capfd.readouterr().err
    assert "was changed since it was made" in said and "model.safetensors" in said and "aisc verify" in said


def test_killed_on_the_way_it_goes_on_as_if_it_had_not_been(place: Path, released: tuple[ChainFolder, str]) -> None:
    words = ("train", str(place / "short.yaml"), f"run.dir={place / 'killed'}")
    chain = ChainFolder(place / "killed" / released[0].name.replace("tiny", "short"))
    dpo = chain.run_of("dpo")
    process = subprocess.Popen(aisc_command(*words), env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT_S
    while not any(read_lines(attempt.ledger_path) for attempt in dpo.attempts()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not dpo.result_path.exists(), "killed in the middle"
    code, said = aisc(*words)
    assert code == 0 and "done before, verified" in said, said
    for name in ("sft", "dpo"):
        assert head(chain.run_of(name)) == head(released[0].run_of(name))
    assert len(chain.run_of("sft").attempts()) == 1 and len(dpo.attempts()) == 2
    assert [one.state for one in chain.info().stages] == ["done"] * 2


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("stages.dpo.objective.beta=x",), ["objective.beta=x: expected", "(stage dpo)"]),
        (("stages.dpoo.objective.beta=0.2",), ["stages.dpoo: no such stage; did you mean stages.dpo?"]),
        (("stages.dpo.model.path=/m",), ["model.path: a later stage begins from what the stage before wrote"]),
        (("stages.dpo.data.train=gone.jsonl", "training.sed=2"), ["data.train=gone.jsonl: no such file or folder", "did you mean training.seed?"]),
        (("stages.evaluate.pack=[hk]",), ["stages.evaluate.pack: no such key; did you mean packs?"]),
        (("stages.evaluate.packs=[hkk]",), ["hkk: no such pack or task; did you mean hk?"]),
        (("stages.evaluate.forgetting=gone.txt",), ["stages.evaluate.forgetting=gone.txt: no such file"]),
        (("stages.release.dtype=fp8",), ["stages.release.dtype=fp8: expected one of float32"]),
        (
            ("stages.sft.objective=reward", "cluster.stages=[train,eval,export]"),
            ["stages.dpo: stages.sft makes a reward model", "eval, export: belongs to a single run", "stages.evaluate: {}, stages.release: {}"],
        ),
        (("stages.dpo.objective=reward",), ["stages.evaluate: stages.dpo makes a reward model", "leave release out"]),
        (("data.licence=", "stages.dpo.data.sequence_length=4096"), ["no licence", "4096: the model has 2048 positions", "(stage dpo)"]),
    ],
)
def test_a_problem_of_any_stage_is_told_before_the_first_starts(
    place: Path, words: tuple[str, ...], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert main(["train", str(place / "tiny.yaml"), f"run.dir={place / 'none'}", *words]) == 2
    said = capsys.readouterr().err
    assert all(line in said for line in lines), said
    assert not (place / "none").exists() and time.monotonic() - began < 10


def test_other_verbs_say_what_a_chain_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(place / "tiny.yaml")]) == 2
    assert "aisc inspect: this is a chain (stages:); give one stage's YAML" in capsys.readouterr().err


def test_an_adapter_is_merged_for_the_stage_behind_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(place / "adapter.yaml"), "--dry-run", "stages.sft.training.seed=3"]) == 0
    said = capsys.readouterr().out
    assert "sft, lora (merged: the next stage begins from it)" in said and "nothing was started" in said


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        ("[sft]", "stages: expected a mapping NAME"),
        ("{evaluate: {}}", "stages: no stage that trains"),
        ("{release: {}, sft: {objective: sft}}", "expected this order: sft, release"),
        ("{s-1: {}}", "stages.s-1: expected a name of letters"),
        ("{sft: chats.jsonl}", "stages.sft: expected sections"),
    ],
)
def test_what_is_no_chain(tmp_path: Path, stages: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text(f"stages: {stages}\n")
    assert main(["train", str(tmp_path / "bad.yaml")]) == 2
    assert line in capsys.readouterr().err
