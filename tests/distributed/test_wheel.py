"""The wheel, installed in an environment of its own, run from a folder whose names are ours too."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
from pathlib import Path

import pytest

from configs.runfolder import read_json
from launch.runs import all_runs
from tests.kills.lab import make_chats, make_tokenizer

ROOT = Path(__file__).parents[2]


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with a clean PYTHONPATH."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=cwd, env={**variables, **environment}, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with our wheel; the libraries are those of this one, without our sources."""
    folder = tmp_path_factory.mktemp("wheel")
    # --no-isolation: setuptools is here already, and nothing is fetched.
    built = run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], ROOT)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (wheel,) = folder.glob("aisc_finetune-*.whl")
    venv = folder / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(venv)], folder)
    (packages,) = venv.glob("lib/python*/site-packages")
    # A path in a .pth file is searched, but .pth files found there are not read: the editable install stays out.
    (packages / "libraries.pth").write_text(site.getsitepackages()[0] + "\n")
    done = run([sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "--no-deps", str(wheel)], folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return venv / "bin"


@pytest.fixture(scope="module")
def decoys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with a train.py, a configs/ and a launch/ of its own, a tokenizer and chats."""
    folder = tmp_path_factory.mktemp("decoys")
    bomb = "raise SystemExit('the decoy was imported')\n"
    (folder / "train.py").write_text(bomb)
    for name in ("configs", "launch"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(bomb)
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 160))
    return folder


def command(bin_folder: Path, runs: str) -> list[str]:
    return [
        str(bin_folder / "aisc"),
        "train",
        "model=tiny_llama",
        "model.tokenizer=tokenizer",
        "data=chats.jsonl",
        "data.sequence_length=64",
        "data.workers=1",
        "training.global_batch_size=4",
        "training.duration=20 steps",
        "evaluation.replies=0",
        f"run.dir={runs}",
    ]


def ledger_of(folder: Path) -> tuple[str, float]:
    """Returns the sample ledger and the held-out loss of the one run in `folder`."""
    (found,) = all_runs(folder)
    result = read_json(found.result_path)
    assert result is not None
    return str(result["ledger"]), float(result["eval_loss"])


def test_wheel_trains_among_decoys_alone_and_under_torchrun(installed: Path, decoys: Path) -> None:
    plain = run(command(installed, "plain"), decoys)
    assert plain.returncode == 0, plain.stdout[-1500:] + plain.stderr[-1500:]
    first = run(command(installed, "first"), decoys, PYTHONPATH=".")
    assert first.returncode == 0, first.stdout[-1500:] + first.stderr[-1500:]
    torchrun = [str(installed / "python"), "-m", "torch.distributed.run", "--no-python", "--standalone", "--nproc-per-node=2"]
    second = run([*torchrun, *command(installed, "second")], decoys, PYTHONPATH=".", OMP_NUM_THREADS="1")
    assert second.returncode == 0, second.stdout[-1500:] + second.stderr[-1500:]
    ledgers = [ledger_of(decoys / name) for name in ("plain", "first", "second")]
    assert ledgers[0] == ledgers[1]
    assert ledgers[2][0] == ledgers[0][0] and ledgers[2][1] == pytest.approx(ledgers[0][1], rel=1e-5)


def test_wheel_holds_presets_and_no_tests(installed: Path) -> None:
    (packages,) = (installed.parent).glob("lib/python*/site-packages")
    assert (packages / "configs" / "model" / "tiny_llama.yaml").is_file()
    assert not (packages / "tests").exists() and not (packages / "benchmarks").exists()


def test_doctor_names_another_owner_of_our_names(installed: Path, decoys: Path) -> None:
    assert re.search(r"ok +names", run([str(installed / "aisc"), "doctor"], decoys, PYTHONPATH=".").stdout)
    (packages,) = (installed.parent).glob("lib/python*/site-packages")
    other = packages / "someones_tool-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-tool\nVersion: 1.0\n")
    (other / "top_level.txt").write_text("configs\n")
    (other / "RECORD").write_text("configs/theirs.py,,\n")
    done = run([str(installed / "aisc"), "doctor"], decoys)
    assert done.returncode == 1
    assert "configs belongs to someones-tool too" in done.stdout
