"""`aisc export --release` and `aisc verify` on one tiny run made through the command line: whole, or not there at all."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from configs.runfolder import RunFolder, read_json
from launch.runs import find_run
from tests.kills.lab import make_chats, make_tokenizer
from tests.unit.test_verify import flip
from train import release
from train.cards import as_text, look_up

Aisc = Callable[..., tuple[int, str]]
# What `aisc eval` writes of the forgetting gate.
GATE: dict[str, Any] = {"tripped": False, "difference": 0.01, "low": -0.01, "high": 0.03, "bound": 0.05, "confidence": 0.95}
GATE |= {"loss": 3.01, "loss_base": 3.0, "documents": 40, "tokens": 1000}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `first` (full, no licence) and `second` (LoRA on it, merged at its end, licence stated)."""
    folder = tmp_path_factory.mktemp("release")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 60))
    common = [
        "data=chats.jsonl",
        f"run.dir={folder / 'runs'}",
        *("data.sequence_length=64", "data.workers=1", "data.validation=20%", "data.duplicates=off", "evaluation.replies=0"),
        *("training.global_batch_size=4", "training.duration=4 steps", "training.micro_batch_size=4", "training.min_steps=0"),
        "optimizer.lr=3e-3",
    ]
    # Started in the folder with relative paths; what follows is called from elsewhere.
    with contextlib.chdir(folder):
        assert main(["train", "model=tiny_llama", "model.tokenizer=tokenizer", "run.name=first", *common]) == 0
        base = find_run("first", Path("runs")).path / "model"
        lora = ["adapter=lora", "adapter.rank=4", "export.merge=true", "data.licence=CC-BY-4.0"]
        assert main(["train", f"model={base}", "run.name=second", *lora, *common]) == 0
    return folder


@pytest.fixture
def aisc(place: Path, capsys: pytest.CaptureFixture[str]) -> Aisc:
    """Runs a verb on those runs; returns the exit code and what was printed."""

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([*arguments, f"run.dir={place / 'runs'}"])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def run_of(place: Path, name: str) -> RunFolder:
    return find_run(name, place / "runs")


def left_behind(run: RunFolder) -> list[str]:
    return [path.name for path in run.path.iterdir() if path.name.startswith((".tmp-", "release"))]


def test_the_end_of_a_run_that_merges_went_through_the_gate(place: Path) -> None:
    manifest = read_json(run_of(place, "second").path / "manifest.json")
    assert manifest is not None and manifest["parity"]["logits"] <= manifest["parity"]["bound"] == 1e-4
    assert manifest["parity"]["texts"] == 4 and manifest["parity"]["is_tied"] is True


def test_a_source_without_a_licence_is_refused_and_named(aisc: Aisc, place: Path) -> None:
    code, text = aisc("export", "first", "--release")
    assert code == 2 and "no licence for source train; expected data.licence" in text
    code, text = aisc("export", "first", "--release", "--licence", "trian=CC-BY-4.0")
    assert code == 2 and "--licence trian=...: no such source; the run has train" in text
    assert not left_behind(run_of(place, "first"))


def test_a_licence_said_at_the_release_is_kept(aisc: Aisc, place: Path) -> None:
    run = run_of(place, "first")
    code, text = aisc("export", "first", "--release", "--licence", "train=CC0-1.0")
    assert code == 0 and "full," in text and "outputs agree" in text
    assert "CC0-1.0" in (run.path / "release" / "data_card.md").read_text()
    assert read_json(run.path / "licences.json") == {"train": "CC0-1.0"}


def test_a_tripped_forgetting_gate_refuses(aisc: Aisc, place: Path) -> None:
    run = run_of(place, "second")
    manifest = read_json(run.path / "manifest.json")
    assert manifest is not None
    weights = {name: digest for name, digest in manifest["outputs"].items() if name.endswith(".safetensors")}
    write_evaluation(run, weights, {"tripped": True})
    code, text = aisc("export", "second", "--release")
    assert code == 1 and "release refused: the forgetting gate tripped (eval/tiny.json). Nothing was released" in text
    assert not left_behind(run)
    write_evaluation(run, weights, {"tripped": False})


def write_evaluation(run: RunFolder, weights: dict[str, str], forgetting: dict[str, Any]) -> None:
    metric = {"value": 0.625, "stderr": 0.1, "low": 0.5, "high": 0.75, "n": 1200}
    tasks = {"icd/10": {"pack": "medical", "metrics": {"acc": metric}, "samples": None}}
    value = {"model": str(run.path / "model"), "kind": "run", "weights": weights, "tasks": tasks, "forgetting": {**GATE, **forgetting}}
    (run.path / "eval").mkdir(exist_ok=True)
    (run.path / "eval" / "tiny.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("data", "chats.jsonl"),
        ("store", "train/mask.npy"),
        ("weights", "model/model.safetensors"),
        ("config", "attempts/1/config.yaml"),
        ("records", "attempts/1/ledger.jsonl"),
    ],
)
def test_one_flipped_byte_is_named_and_nothing_is_released(aisc: Aisc, place: Path, kind: str, file: str) -> None:
    run, first = run_of(place, "second"), run_of(place, "first")
    store = next(folder for folder in (place / "stores").iterdir() if folder.is_dir())
    path = {"data": place, "store": store, "weights": first.path}.get(kind, run.path) / file
    kept = path.read_bytes()
    flip(path)
    try:
        code, text = aisc("verify", "second")
        assert code == 1 and str(file) in text and f"  {kind}  " in text
        code, text = aisc("export", "second", "--release")
        assert code in (1, 2) and "second" in text
        assert not left_behind(run)
    finally:
        path.write_bytes(kept)
    assert aisc("verify", "second")[0] == 0


def test_pages_that_cannot_be_made_refuse(aisc: Aisc, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_nothing(run_path: Path, release_path: Path) -> list[Path]:
        raise ValueError("no ink")

    monkeypatch.setattr(release, "PAGES", (write_nothing,))
    code, text = aisc("export", "second", "--release")
    assert code == 1 and "write_nothing failed (ValueError: no ink). Nothing was released" in text
    assert not left_behind(run_of(place, "second"))


def test_a_release_is_whole_and_every_number_of_its_cards_has_a_source(aisc: Aisc, place: Path) -> None:
    run = run_of(place, "second")
    code, text = aisc("export", "second", "--release")
    assert code == 0 and "merged," in text, text
    folder = run.path / "release"
    assert {"model", "README.md", "data_card.md", "evidence", "release.json", "board.html", "paper"} == {p.name for p in folder.iterdir()}
    listed = read_json(folder / "release.json")
    assert listed is not None and listed["files"].keys() | {"release.json"} == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    for card in ("README.md", "data_card.md"):
        check_card(folder, card)
    text = (folder / "README.md").read_text()
    assert "| `icd/10` | `acc` | 0.6250 | 0.5000 to 0.7500 | 1,200 |" in text
    assert "CC-BY-4.0" in (folder / "data_card.md").read_text() and "| groups on both sides | 0 |" in (folder / "data_card.md").read_text()
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*"))
    for path in (path for path in folder.rglob("*") if path.is_file()):
        for said in (str(place), str(Path.home()), place.name):
            assert said.encode() not in path.read_bytes(), (path.relative_to(folder), said)
    assert f"Fine-tuned from `{run_of(place, 'first').name}`" in text
    code, text = aisc("export", "second", "--release")
    assert code == 0 and "released before, nothing changed since" in text
    assert aisc("verify", "second")[0] == 0
    flip(folder / "README.md")
    code, text = aisc("verify", "second")
    assert code == 1 and "release  release/README.md" in text
    code, text = aisc("export", "second", "--release")
    assert code == 1 and "changed since it was released" in text
    shutil.rmtree(folder)


def check_card(folder: Path, name: str) -> None:
    """Every number before the table of sources is in the table, and each line of the table agrees with the file it names."""
    body, _, table = (folder / name).read_text(encoding="utf-8").partition("## Where the numbers come from")
    shown = set()
    for text, file, pointer in re.findall(r"^\| (\S+) \| `([^`]+)` \| `([^`]+)` \|$", table, re.M):
        value = look_up(json.loads((folder / file).read_text(encoding="utf-8")), pointer)
        digits = len(text.partition(".")[2]) or None
        assert value is not None and text == as_text(value, digits), (text, file, pointer)
        shown.add(text)
    free = re.sub(r"`[^`]*`|SHA-256", "", body)
    numbers = re.findall(r"-?\d[\d,.]*\d|\d", free)
    assert len(numbers) > 5 and set(numbers) <= shown, set(numbers) - shown
