"""Finds, verifies, reads and retires checkpoints along the chain of attempts. Torch-free.

A checkpoint is used only after every byte of it was compared with its manifest. One that fails is skipped by name, with
an event and a sentence, and the next older one is taken; nothing is ever filled in silently.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configs import atomic
from configs.errors import CheckpointError
from configs.runfolder import CHECKPOINT_PREFIX, Attempt, ChainLink, Parent, RunFolder
from train.activity import sign
from train.checkpoint_files import INDEX, MANIFEST, READABLE_FORMATS, STATE, checkpoint_name, rank_file, unseal_json
from train.shard_files import NUMPY_DTYPES, SafetensorsFile, assemble
from train.shard_plan import flat_rectangles


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint that was not used, and why."""

    folder: Path
    reason: str

    @property
    def sentence(self) -> str:
        """One line for the screen."""
        return f"skipped damaged checkpoint {self.folder}: {self.reason}"


@dataclass(slots=True)
class Checkpoint:
    """A verified checkpoint, open for reading.

    Attributes:
        attempt: number of the attempt that wrote it.
        manifest: SHA-256 of its manifest.json.
        state: what state.json holds.
    """

    folder: Path
    attempt: int
    step: int
    manifest: str
    state: dict[str, Any]
    index: dict[str, Any]
    _files: dict[int, SafetensorsFile] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)

    @property
    def parent(self) -> Parent:
        """What an attempt that continues from here writes into its start.json."""
        return Parent(self.attempt, self.step, self.manifest)

    @property
    def ranks(self) -> int:
        """Number of ranks that wrote it."""
        return int(self.index["ranks"])

    def names(self) -> list[str]:
        """Returns the names of all tensors."""
        return list(self.index["tensors"])

    def dtype(self, name: str) -> str:
        """Returns the safetensors dtype of tensor `name`."""
        return str(self._entry(name)["dtype"])

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the whole tensor `name`, which then counts as asked for."""
        self._read.add(name)
        return tuple(self._entry(name)["shape"])

    def read(
        self, name: str, window: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    ) -> npt.NDArray[np.generic]:
        """Returns tensor `name`, or the part in `window` (offsets, shape), as a new array; BF16 as 16-bit words.

        Raises:
            CheckpointError: there is no such tensor; it is never replaced by a fresh one.
        """
        whole = self.shape(name)
        offsets, shape = window or ((0,) * len(whole), whole)
        out = np.empty(shape, dtype=NUMPY_DTYPES[self.dtype(name)])
        self._fill(out, name, offsets)
        return out

    def read_flat(self, name: str, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Returns elements `start` to `stop` of tensor `name` flattened row by row; reads no others from the disk."""
        out = np.empty(stop - start, dtype=NUMPY_DTYPES[self.dtype(name)])
        position = 0
        for offsets, shape in flat_rectangles(self.shape(name), start, stop):
            end = position + prod(shape)
            self._fill(out[position:end].reshape(shape), name, offsets)
            position = end
        return out

    def _fill(self, out: npt.NDArray[np.generic], name: str, offsets: tuple[int, ...]) -> None:
        # Blocks are views of memory-mapped files: only what is copied is read.
        parts = (
            (tuple(b["offsets"]), self._file(b["rank"]).read(b.get("key", name))) for b in self._entry(name)["blocks"]
        )
        assemble(f"{self.folder}: {name}", out, offsets, parts)

    def unread(self, prefixes: tuple[str, ...]) -> list[str]:
        """Returns the tensors under `prefixes` that nobody has asked for."""
        return [name for name in self.names() if name.startswith(prefixes) and name not in self._read]

    def _entry(self, name: str) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = self.index["tensors"][name]
        except KeyError:
            raise CheckpointError(
                f"checkpoint {self.folder} has no tensor {name}: another model, adapter or optimizer wrote it. "
                "Nothing was started afresh in its place"
            ) from None
        return entry

    def _file(self, rank: int) -> SafetensorsFile:
        if rank not in self._files:
            self._files[rank] = SafetensorsFile(self.folder / rank_file(rank))
        return self._files[rank]


def open_checkpoint(
    folder: Path, attempt: int, *, manifest_hash: str | None = None, is_verified: bool = False
) -> Checkpoint:
    """Verifies every file of `folder` and returns it open for reading.

    Args:
        manifest_hash: what its manifest must hash to, when somebody recorded that.
        is_verified: another rank has just compared all hashes; sizes and the manifest are still checked here.

    Raises:
        CheckpointError: a file is missing, has another size or hash, or is not ours; names it.
    """
    manifest, digest = _read_manifest(folder)
    if manifest_hash is not None and digest != manifest_hash:
        raise CheckpointError(f"{MANIFEST} is not the one that a later attempt continued from")
    for name, file in () if is_verified else manifest["files"].items():
        sign()  # rank 0 alone may read terabytes here, in a rollback or before the export
        try:
            found = atomic.sha256_file(folder / name)
        except OSError as error:
            raise CheckpointError(f"{name} cannot be read ({error.strerror})") from error
        if found != file["sha256"]:
            raise CheckpointError(f"{name} has SHA-256 {found[:12]}.., expected {file['sha256'][:12]}..")
    state = json.loads((folder / STATE).read_bytes())
    index = json.loads((folder / INDEX).read_bytes())
    return Checkpoint(folder, attempt, int(manifest["step"]), digest, state, index)


def checkpoint_folders(attempt: Attempt) -> dict[int, Path]:
    """Returns the attempt's published checkpoints by step, lowest first; nothing is verified."""
    found = {}
    for path in attempt.checkpoints.glob(f"{CHECKPOINT_PREFIX}*"):
        digits = path.name.removeprefix(CHECKPOINT_PREFIX)
        if digits.isascii() and digits.isdigit():
            found[int(digits)] = path
    return dict(sorted(found.items()))


def candidates(links: list[ChainLink]) -> Iterator[tuple[ChainLink, int, Path]]:
    """Yields the checkpoints that count along the chain, newest first, as (link, step, folder)."""
    for link in links:
        for step, path in sorted(checkpoint_folders(link.attempt).items(), reverse=True):
            if link.until_step is None or step <= link.until_step:
                yield link, step, path


def find_latest(
    run: RunFolder, *, below: int | None = None, step: int | None = None
) -> tuple[Checkpoint | None, list[Skipped]]:
    """Returns the newest checkpoint of the chain that verifies, and those skipped on the way to it.

    Args:
        below: only attempts with lower numbers (what a new attempt asks).
        step: only the checkpoint of this step (the best one, for the export).
    """
    skipped: list[Skipped] = []
    for link, at, path in candidates(run.chain(below=below)):
        if step is not None and at != step:
            continue
        expected = link.manifest if at == link.until_step else None
        try:
            return open_checkpoint(path, link.attempt.number, manifest_hash=expected), skipped
        except CheckpointError as error:
            skipped.append(Skipped(path, str(error)))
    return None, skipped


def begin_attempt(run: RunFolder, facts: dict[str, Any]) -> tuple[Attempt, Checkpoint | None, list[Skipped]]:
    """Claims the next attempt, finds where it continues and writes its start.json. Rank 0 only.

    Claiming comes before looking: from then on no older attempt publishes, so what is found stays the newest.

    Args:
        facts: for start.json; those of FIXED_FACTS are compared with the run's earlier start.

    Raises:
        CheckpointError: a living process of this machine trains the run, or data, weights, tokenizer or identity
            changed (both before anything is written), or every checkpoint of the run is damaged.
    """
    run.check_idle()
    run.check_same(facts)
    attempt = run.claim()
    checkpoint, skipped = find_latest(run, below=attempt.number)
    for damaged in skipped:
        attempt.event("checkpoint_skipped", folder=str(damaged.folder), reason=damaged.reason)
    if checkpoint is None and skipped:
        lines = "\n".join(damaged.sentence for damaged in skipped)
        message = f"{lines}\nno checkpoint of {run.path} is intact. Start again with --new"
        attempt.finish("failed", 2, message)
        raise CheckpointError(message)
    attempt.write_start(facts, None if checkpoint is None else checkpoint.parent)
    return attempt, checkpoint, skipped


def retire(run: RunFolder, attempt: Attempt, *, keep: int, best_step: int | None) -> list[Path]:
    """Deletes what is no longer needed: all but the newest `keep` checkpoints of the chain and the best one.

    Also what earlier attempts left off the chain and half-written. Only after a publication of `attempt`, only while it
    is the highest, and only when a kept checkpoint has its manifest and all its files in full size. What cannot be
    deleted stays, with an event: the checkpoint that matters is safe.

    Returns:
        The folders deleted.
    """
    deleted: list[Path] = []
    try:
        for path in _doomed(run, attempt, keep, best_step):
            attempt.check_current()
            if path.name.startswith(atomic.TEMPORARY_PREFIX):
                shutil.rmtree(path, ignore_errors=True)
            else:
                atomic.remove_folder(path)
            deleted.append(path)
    except OSError as error:
        attempt.event("not_removed", reason=f"{error.strerror}: {error.filename}")
    return deleted


def _doomed(run: RunFolder, attempt: Attempt, keep: int, best_step: int | None) -> list[Path]:
    counted = list(candidates(run.chain()))
    kept_steps = sorted({step for _, step, _ in counted}, reverse=True)[:keep]
    kept: dict[int, Path] = {}
    for _, step, path in counted:
        if step in kept_steps or step == best_step:
            kept.setdefault(step, path)
    if not any(_is_complete(path) for path in kept.values()):
        return []
    doomed = []
    for other in run.attempts():
        if other.number <= attempt.number:
            doomed += [path for path in checkpoint_folders(other).values() if path not in kept.values()]
            doomed += list(other.checkpoints.glob(f"{atomic.TEMPORARY_PREFIX}*"))
    return doomed


def checkpoint_of(run: RunFolder, step: int) -> Checkpoint:
    """Returns the verified checkpoint of `step`.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    checkpoint, skipped = find_latest(run, step=step)
    if checkpoint is None:
        reason = "; ".join(damaged.sentence for damaged in skipped) or f"expected {checkpoint_name(step)}"
        raise CheckpointError(f"{run.path}: no intact checkpoint of step {step} ({reason})")
    return checkpoint


def _read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """Returns the manifest and its SHA-256 after comparing the sizes of all files."""
    try:
        data = (folder / MANIFEST).read_bytes()
        manifest = unseal_json(data)
    except FileNotFoundError:
        raise CheckpointError(f"{MANIFEST} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{MANIFEST} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{MANIFEST} is damaged ({error})") from None
    if manifest.get("format") not in READABLE_FORMATS:
        expected = " or ".join(map(str, READABLE_FORMATS))
        raise CheckpointError(f"{MANIFEST} has format {manifest.get('format')!r}, expected {expected}")
    if folder.name != checkpoint_name(int(manifest["step"])):
        raise CheckpointError(f"{MANIFEST} is that of step {manifest['step']}")
    for name, file in manifest["files"].items():
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError:
            raise CheckpointError(f"{name} is missing") from None
        if size != file["bytes"]:
            raise CheckpointError(f"{name} has {size:,} bytes, expected {file['bytes']:,}")
    return manifest, hashlib.sha256(data).hexdigest()


def _is_complete(folder: Path) -> bool:
    try:
        _read_manifest(folder)
    except CheckpointError:
        return False
    return True
