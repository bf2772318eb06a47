"""Where everything came from: hashes of every byte read, versions, seeds, hardware. Written to manifest.json."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from configs.atomic import sha256_file
from configs.staged import staged

PACKAGES = ("cli", "configs", "data_pipelines", "train", "launch")
LIBRARIES = (
    "aisc-finetune",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "deepspeed",
    "datasets",
    "peft",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "numpy",
)
ROOT = Path(__file__).resolve().parent.parent


class Hashing:
    """Hashes files in a thread while the run starts, by their names, as they are read: a node's own copy where it has one.

    Hashing releases the interpreter lock.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hashing")
        self._hashes: dict[str, Future[str]] = {str(p): self._pool.submit(sha256_file, staged(p)) for p in paths}

    def result(self) -> dict[str, str]:
        """Waits, and returns SHA-256 by path."""
        self._pool.shutdown(wait=True)
        return {path: future.result() for path, future in self._hashes.items()}


def source_files() -> list[Path]:
    """Returns every Python file, YAML and template of our packages."""
    return sorted(
        path
        for package in PACKAGES
        for pattern in ("*.py", "*.yaml", "*.jinja")
        for path in (ROOT / package).rglob(pattern)
        if "__pycache__" not in path.parts
    )


def code_commit() -> str | None:
    """Returns the git commit of a checkout, with `+changes` when files differ; None for an installed package."""
    if not (ROOT / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit


def versions() -> dict[str, str]:
    """Returns the installed version of each library of the stack."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **found}


def hardware() -> dict[str, Any]:
    """Returns what the run computes on."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
    }


def fold(hashes: dict[str, str]) -> str:
    """Returns one hash of several files, by name and content, whatever folder they are in."""
    lines = sorted(f"{Path(path).name} {digest}" for path, digest in hashes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
