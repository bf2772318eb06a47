"""`make bundle`: everything that an install without internet needs, as one folder: wheels, checksums, a script.

    python -m install.bundle [--to FOLDER] [--constraints FILE] [--extras NAME,NAME]

    aisc-bundle-0.1.0-py3.11-x86_64/
      install.sh          verifies and installs into a virtual environment; needs Python only
      SHA256SUMS          of every file here, in sha256sum's form
      requirements.txt    every wheel by name, version and hash
      wheels/             exactly the versions of the constraints; one Python version, one machine type

What exists as source only (DeepSpeed, antlr4) is built here, so the other machine needs no compiler for the install.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.atomic import sha256_file

ROOT = Path(__file__).resolve().parent.parent
OURS = "aisc-finetune"
EXTRAS = ("sweep", "gguf", "tensorboard", "wandb", "mlflow")
SUMS, REQUIREMENTS, INSTALLER = "SHA256SUMS", "requirements.txt", "install.sh"


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the bundle; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m install.bundle", description="Makes the folder for an install without internet.")
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="where the bundle's folder goes (dist)")
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints" / "ci.txt", help="exact versions")
    parser.add_argument("--extras", default=",".join(EXTRAS), help="optional parts to take along")
    given = parser.parse_args(arguments)
    version = str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    folder: Path = given.to / bundle_name(version)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True)
    collect_wheels(folder / "wheels", given.constraints, given.extras)
    if problems := differing(wheels_in(folder), read_constraints(given.constraints.read_text(encoding="utf-8")), version):
        print("\n".join(["error: not what the constraints say:", *problems]), file=sys.stderr)
        return 1
    seal(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{folder}   {len(files) - 3} wheels, {size / 2**30:.2f} GiB")
    print(f"copy it, then there:  {folder.name}/{INSTALLER} FOLDER")
    return 0


def bundle_name(version: str) -> str:
    """Returns the folder's name: release, Python version and machine type that its wheels are for."""
    return f"aisc-bundle-{version}-py{sys.version_info.major}.{sys.version_info.minor}-{platform.machine()}"


def collect_wheels(folder: Path, constraints: Path, extras: str) -> None:
    """Fills `folder` with our wheel and all it needs; what is source only is built in this environment, which has torch."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-build-isolation"]
    wanted = f"{ROOT}[{extras}]" if extras else str(ROOT)
    subprocess.run([*command, "--constraint", str(constraints), "--wheel-dir", str(folder), wanted], check=True)


def wheels_in(folder: Path) -> dict[str, Path]:
    """Returns the wheels of a bundle by `name==version`, names in their normal form."""
    found = {}
    for path in sorted((folder / "wheels").glob("*.whl")):
        name, version = path.name.split("-")[:2]
        found[f"{normal(name)}=={version}"] = path
    return found


def normal(name: str) -> str:
    """Returns a distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_constraints(text: str) -> dict[str, str]:
    """Returns version by normal name."""
    lines = [line.strip() for line in text.splitlines()]
    return {normal(name): version for line in lines if "==" in line and not line.startswith("#") for name, version in [line.split("==")]}


def differing(wheels: Mapping[str, Path], constraints: Mapping[str, str], version: str) -> list[str]:
    """Returns one line for each wheel whose version is not that of the constraints; a build tag, `+cpu`, is none."""
    wanted = {**constraints, OURS: version}
    found = []
    for pinned in wheels:
        name, there = pinned.split("==")
        if name not in wanted:
            found.append(f"{name} {there}: not in the constraints")
        elif there.split("+")[0] != wanted[name].split("+")[0]:
            found.append(f"{name} {there}: the constraints say {wanted[name]}")
    return found


def seal(folder: Path) -> None:
    """Writes what pip and sha256sum verify: requirements by hash, the script, checksums of every file."""
    pinned = [f"{name} --hash=sha256:{sha256_file(path)}" for name, path in wheels_in(folder).items()]
    (folder / REQUIREMENTS).write_text("\n".join([*pinned, ""]), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name(INSTALLER), folder / INSTALLER)
    (folder / INSTALLER).chmod(0o755)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{sha256_file(path)}  {path.relative_to(folder)}" for path in files]
    (folder / SUMS).write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
