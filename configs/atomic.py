"""Files and folders that appear whole or not at all. Standard library only.

A file is written to a temporary name in the same folder, flushed to disk (fsync), then renamed; the folder entry is
flushed too. A folder is filled under a temporary name and renamed when complete. Whatever is killed on the way leaves
only names that start with `.tmp-`, which nobody reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".tmp-"
_CHUNK_BYTES = 1 << 20


def fsync_folder(path: Path) -> None:
    """Flushes the entries of folder `path` to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Flushes the bytes of file `path` to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(final: Path) -> Path:
    """Returns a fresh temporary path beside `final`, on the same file system."""
    return final.parent / f"{TEMPORARY_PREFIX}{final.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def write_file(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    temporary = temporary_name(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any, mode: int = 0o600) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_file(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", mode)


def publish_folder(temporary: Path, final: Path) -> bool:
    """Flushes everything below `temporary` and renames it to `final`.

    Returns:
        True when this call published it, False when `final` was there already (then `temporary` is deleted).
    """
    for folder, _, names in os.walk(temporary, topdown=False):
        for name in names:
            fsync_file(Path(folder) / name)
        fsync_folder(Path(folder))
    try:
        os.rename(temporary, final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(temporary, ignore_errors=True)
        return False
    fsync_folder(final.parent)
    return True


def remove_folder(path: Path) -> None:
    """Removes folder `path` so that a reader sees it whole or not at all: renamed first, then deleted."""
    doomed = temporary_name(path)
    try:
        os.rename(path, doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder(final: Path) -> Iterator[Path]:
    """Yields a fresh private folder beside `final`; what is still there at the end is deleted."""
    temporary = temporary_name(final)
    os.mkdir(temporary, 0o700)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of the file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
