"""Weights and data onto a node's own disk before training, once per node; checked for room, file by file for size. Torch-free."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from configs import atomic
from configs.errors import LaunchError
from configs.staged import MAP_NAME
from launch.machine import machine_name
from launch.slurm_client import call

# Nothing reads weights from these.
UNREAD = (".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx")
# Left free for what else is on that disk.
SPARE_BYTES = 1 << 30
NUM_COPIERS = 4
PREFIX = "aisc-"


def stage_in(target: Path, folders: Mapping[str, Path]) -> str:
    """Copies `folders` into `target` on this node and writes down where each one lies; returns a line that says what.

    What an earlier start of this job left there complete is taken as it is; folders of jobs that have ended are removed.

    Args:
        target: this job's own folder.
        folders: by the names of their copies: `model`, `store`.

    Raises:
        LaunchError: no room, or a file that changes meanwhile.
    """
    began = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    target.mkdir(mode=0o700, exist_ok=True)
    pairs = [(path, target / name / path.relative_to(folder)) for name, folder in folders.items() for path in files_of(folder)]
    missing = [(source, copy) for source, copy in pairs if not _is_copied(source, copy)]
    needed, free = sum(source.stat().st_size for source, _ in missing), shutil.disk_usage(target).free
    if needed + SPARE_BYTES > free:
        raise LaunchError(
            f"{machine_name()}: cluster.stage_to={target.parent}: {free / 1e9:.1f} GB free, weights and data need "
            f"{(needed + SPARE_BYTES) / 1e9:.1f} GB; another folder, or leave it out: they are then read where they lie"
        )
    with ThreadPoolExecutor(NUM_COPIERS) as pool:
        list(pool.map(lambda pair: _copy(*pair), missing))
    atomic.write_json(target / MAP_NAME, {"folders": {str(folder.absolute()): str(target / name) for name, folder in folders.items()}})
    what = " and ".join(folders) or "nothing"
    return f"{machine_name()}: staged {what}, {needed / 1e9:.2f} GB in {time.monotonic() - began:.1f} s"


def files_of(folder: Path) -> list[Path]:
    """Returns the files of a model folder or of a prepared store that are read."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in UNREAD]
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def remove_leftovers(target: Path) -> None:
    """Removes folders beside `target` that this user's ended jobs left; what Slurm does not tell stays."""
    mine = [path for path in target.parent.glob(f"{PREFIX}[0-9]*") if path != target and path.stat().st_uid == os.getuid()]
    if not mine:
        return
    try:
        alive = set(call(("squeue", "--me", "--noheader", "--format=%A")).split())
    except LaunchError:
        return
    for path in mine:
        if path.name.removeprefix(PREFIX) not in alive:
            shutil.rmtree(path, ignore_errors=True)


def _is_copied(source: Path, copy: Path) -> bool:
    """True for a copy of the same size that was made after the original was last changed."""
    try:
        here, there = copy.stat(), source.stat()
    except FileNotFoundError:
        return False
    return here.st_size == there.st_size and here.st_mtime_ns == there.st_mtime_ns


def _copy(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    before = source.stat()
    shutil.copyfile(source, copy)
    after = source.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns) or copy.stat().st_size != before.st_size:
        raise LaunchError(f"{machine_name()}: {source} changed while it was copied; start again when it is finished")
    # Last: a copy that was cut short has another time, and is made again.
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
