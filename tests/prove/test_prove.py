"""`aisc prove`: planted bugs are named, sound configurations pass, input that cannot be used is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from data_pipelines.corpora import hkcancor, oncology
from tests.kills.lab import make_chats, make_tokenizer
from tests.prove.bugs import BUGS, is_named
from tests.scenario import run_scenario

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


@pytest.fixture(scope="module")
def corpora() -> None:
    """The data of the shipped experiments, as `make demo` and `make oncology` build it."""
    packages = ROOT / ".cache" / "packages"
    if not (DEMO / "hkcancor" / "about.json").is_file():
        hkcancor.build(DEMO / "hkcancor", DEMO / "smollm2", packages)
    if not (DEMO / "oncology" / "about.json").is_file():
        oncology.build(DEMO / "oncology", packages)


@pytest.mark.parametrize("experiment", ["demo", "oncology_sft"])
def test_a_shipped_experiment_passes_in_reduced_form(corpora: None, tmp_path: Path, experiment: str) -> None:
    report = tmp_path / "proof.json"
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "prove", f"experiment={experiment}", "--reduced", "--json", str(report)],
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


def test_the_help_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(option in said for option in ("--reduced", "--steps N", "--ranks N", "--json FILE"))
