"""The bundle for a place without internet: a tiny one is made, installed without network, and refused when it was changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.atomic import sha256_file
from install.bundle import bundle_name, differing, read_constraints, seal, wheels_in

WHEEL = "aisc_finetune-0.1.0-py3-none-any.whl"
PROGRAM = "def main():\n    print('0.1.0 of the tiny bundle')\n"


def make_wheel(folder: Path) -> None:
    """Writes a wheel of our name that holds one module and the command `aisc`."""
    info = "aisc_finetune-0.1.0.dist-info"
    files = {
        "tiny_aisc.py": PROGRAM,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: aisc-finetune\nVersion: 0.1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\naisc = tiny_aisc:main\n",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))


def add_to_wheel(path: Path) -> None:
    """Puts one more module into a wheel."""
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("evil.py", "")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / bundle_name("0.1.0")
    (folder / "wheels").mkdir(parents=True)
    make_wheel(folder / "wheels")
    seal(folder)
    return folder


def install(bundle: Path, target: Path) -> tuple[int, str]:
    """Runs the script as a user does; an index that is configured must not be asked."""
    environment = {**os.environ, "PYTHON": sys.executable, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_INDEX": "0"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(bundle / "install.sh"), str(target)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_bundle_installs_without_an_index(bundle: Path, tmp_path: Path) -> None:
    code, said = install(bundle, tmp_path / "venv")
    assert code == 0, said
    assert "installed 0.1.0 of the tiny bundle" in said and "aisc doctor" in said
    code, said = install(bundle, tmp_path / "venv")
    assert code == 2 and "exists already" in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: (folder / "requirements.txt").write_text("other==1.0\n"), "files differ from SHA256SUMS"),
        (lambda folder: next(iter((folder / "wheels").iterdir())).unlink(), "files differ from SHA256SUMS"),
        (lambda folder: add_to_wheel(folder / "wheels" / WHEEL), "files differ from SHA256SUMS"),
        (lambda folder: (folder / "wheels" / "more-1.0-py3-none-any.whl").write_bytes(b"x"), "somebody has put it there"),
    ],
    ids=["another list", "a wheel is gone", "another wheel", "one more wheel"],
)
def test_a_changed_bundle_is_refused(bundle: Path, tmp_path: Path, change: Callable[[Path], object], sentence: str) -> None:
    change(bundle)
    code, said = install(bundle, tmp_path / "venv")
    assert code == 2 and sentence in said and "Nothing was installed" in said
    assert not (tmp_path / "venv").exists()


def test_wheels_of_another_python_are_refused(bundle: Path, tmp_path: Path) -> None:
    other = bundle.with_name("aisc-bundle-0.1.0-py3.99-x86_64")
    shutil.move(bundle, other)
    code, said = install(other, tmp_path / "venv")
    assert code == 2 and "these wheels are for 3.99; PYTHON=python3.99" in said


def test_every_file_is_sealed(bundle: Path) -> None:
    lines = dict(reversed(line.split("  ")) for line in (bundle / "SHA256SUMS").read_text().splitlines())
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    assert set(lines) == files and all(sha256_file(bundle / name) == digest for name, digest in lines.items())
    assert (bundle / "requirements.txt").read_text().startswith("aisc-finetune==0.1.0 --hash=sha256:")


def test_versions_are_those_of_the_constraints() -> None:
    constraints = read_constraints("# exact\ntorch==2.13.0\nPyYAML==6.0.4\nruamel.yaml==1.0\n")
    wheels = {name: Path() for name in ("torch==2.13.0+cpu", "pyyaml==6.0.4", "ruamel-yaml==1.0", "aisc-finetune==0.1.0")}
    assert differing(wheels, constraints, "0.1.0") == []
    wrong = {"torch==2.12.0": Path(), "surprise==1.0": Path()}
    assert differing(wrong, constraints, "0.1.0") == ["torch 2.12.0: the constraints say 2.13.0", "surprise 1.0: not in the constraints"]


def test_wheels_are_named_in_their_normal_form(bundle: Path) -> None:
    assert list(wheels_in(bundle)) == ["aisc-finetune==0.1.0"]
