"""Every hash of a run's manifest computed again: what is no longer what the run was made from, or what it made.

Needs no torch. A run that began from another run's model is followed to that run: its stages are verified too, and what
it read must be what the former stage wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.atomic import sha256_file
from configs.errors import CheckpointError
from configs.runfolder import RunFolder, read_json, read_ledger
from train import lineage

MANIFEST_NAME, RELEASE_MANIFEST_NAME = "manifest.json", "release.json"
# What `aisc eval RUN` writes; scores of other models in that folder have other names.
OWN_EVALUATION = "eval/model.json"
KINDS = ("data", "store", "weights", "tokenizer", "config", "code", "records", "outputs", "lineage", "evaluations", "release")


@dataclass(frozen=True, slots=True)
class Expected:
    """One file and the SHA-256 that it had; `name` is how the manifest calls it, `run` whose manifest."""

    run: str
    kind: str
    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Change:
    """What differs: `found` is the SHA-256 now, or a word where there is none (`missing`, `cannot be read`)."""

    run: str
    kind: str
    path: str
    expected: str
    found: str


@dataclass(slots=True)
class Verified:
    """The outcome for a run and those it began from.

    Attributes:
        runs: their folders, the one asked for first.
        checked: (run's name, kind) -> number of files and facts compared.
        changes: in the order of the kinds.
        size_bytes: of all files read.
    """

    runs: list[Path] = field(default_factory=list)
    checked: dict[tuple[str, str], int] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    size_bytes: int = 0

    def count(self, run: str, kind: str, number: int = 1) -> None:
        """Adds to what was compared."""
        self.checked[run, kind] = self.checked.get((run, kind), 0) + number


def verify(run: RunFolder, *, with_release: bool = True) -> Verified:
    """Returns what changed since `run` ended, in it and in the runs that it began from.

    Args:
        run: the run's folder.
        with_release: its release folder counts too; a release that is being made has none yet.

    Raises:
        CheckpointError: the run, or one that it began from, has no manifest, or one that cannot be read.
    """
    result = Verified()
    expected: list[Expected] = []
    waiting = [run.path.absolute()]
    while waiting:
        folder = waiting.pop(0)
        if folder in result.runs:
            continue
        manifest = read_manifest(folder)
        result.runs.append(folder)
        expected += [*_files(folder, manifest), *_release_files(folder, manifest, result, with_release=with_release)]
        _check_ledger(folder, manifest, result)
        _check_evaluations(folder, manifest, result)
        waiting += _check_lineage(folder, manifest, result)
    _compare(expected, result)
    result.changes.sort(key=lambda change: (result.runs.index(_named(result, change.run)), KINDS.index(change.kind), change.path))
    return result


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns manifest.json of a run.

    Raises:
        CheckpointError: it is not there, or not what a run writes.
    """
    manifest = read_json(folder / MANIFEST_NAME)
    if manifest is None:
        raise CheckpointError(
            f"{folder / MANIFEST_NAME}: missing; expected a run that is done (aisc runs show {folder.name} says how far it is)"
        )
    missing = [key for key in ("data", "store", "weights", "tokenizer", "config", "code", "outputs") if key not in manifest]
    if missing:
        raise CheckpointError(f"{folder / MANIFEST_NAME}: damaged, {', '.join(missing)} missing; expected what the run wrote")
    return manifest


def _files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Expected]:
    """Yields every file that the manifest of the run in `folder` names."""
    origin = Path(manifest.get("working_folder", "."))
    for kind in ("data", "weights", "tokenizer"):
        for name, digest in manifest[kind].items():
            yield Expected(folder.name, kind, name, origin / Path(name).expanduser(), digest)
    store = origin / manifest["store"]["folder"]
    for name, facts in manifest["store"].get("files", {}).items():
        yield Expected(folder.name, "store", str(store / name), store / name, facts["sha256"])
    for kind in ("config", "records", "outputs"):
        for name, digest in manifest.get(kind, {}).items():
            yield Expected(folder.name, kind, name, folder / name, digest)
    for name, digest in manifest["code"].items():
        yield Expected(folder.name, "code", name, lineage.ROOT / name, digest)


def _release_files(
    folder: Path, manifest: Mapping[str, Any], result: Verified, *, with_release: bool
) -> Iterator[Expected]:
    release = folder / "release"
    if not with_release or not release.is_dir():
        return
    listed = read_json(release / RELEASE_MANIFEST_NAME)
    if listed is None:
        result.changes.append(Change(folder.name, "release", f"release/{RELEASE_MANIFEST_NAME}", "there", "missing"))
        return
    if missing := [key for key in ("manifest", "files", "evaluations") if key not in listed]:
        raise CheckpointError(f"{release / RELEASE_MANIFEST_NAME}: damaged, {', '.join(missing)} missing; expected what the release wrote")
    yield Expected(folder.name, "release", MANIFEST_NAME, folder / MANIFEST_NAME, listed["manifest"])
    for name, digest in listed["files"].items():
        yield Expected(folder.name, "release", f"release/{name}", release / name, digest)
    for name, digest in listed["evaluations"].items():
        yield Expected(folder.name, "evaluations", name, folder / name, digest)
    known = {*listed["files"], RELEASE_MANIFEST_NAME}
    for path in sorted(path for path in release.rglob("*") if path.is_file()):
        if (name := str(path.relative_to(release))) not in known:
            result.changes.append(Change(folder.name, "release", f"release/{name}", "not there", sha256_file(path)))


def _check_ledger(folder: Path, manifest: Mapping[str, Any], result: Verified) -> None:
    """The sample ledger's last head, from the lines of all attempts that count, is the one that the result names."""
    recorded = manifest.get("result", {}).get("ledger")
    lines = read_ledger(folder)
    if recorded is None:
        return
    result.count(folder.name, "records")
    head = str(lines[-1]["head"]) if lines else "missing"
    if head != recorded:
        result.changes.append(Change(folder.name, "records", "ledger.jsonl (last head)", recorded, head))


def _check_evaluations(folder: Path, manifest: Mapping[str, Any], result: Verified) -> None:
    """The evaluation of the run's own model measured the weights that the run wrote."""
    outputs: dict[str, str] = manifest["outputs"]
    values = read_json(folder / OWN_EVALUATION) or {}
    for name, digest in dict(values.get("weights") or {}).items():
        expected = outputs.get(f"model/{name}", "not there")
        result.count(folder.name, "evaluations")
        if expected != digest:
            result.changes.append(Change(folder.name, "evaluations", f"{OWN_EVALUATION} (weights {name})", expected, digest))


def _check_lineage(folder: Path, manifest: Mapping[str, Any], result: Verified) -> list[Path]:
    """Compares what the run read with what the run before it wrote; returns the folders of those runs."""
    found: list[Path] = []
    origin = Path(manifest.get("working_folder", "."))
    for name, digest in manifest["weights"].items():
        path = (origin / Path(name).expanduser()).absolute()
        before = next((parent for parent in path.parents if (parent / "attempts").is_dir()), None)
        if before is None or not (before / MANIFEST_NAME).is_file():
            continue
        if before not in found:
            found.append(before)
        written = read_manifest(before)["outputs"].get(str(path.relative_to(before)))
        if written is None:
            continue
        result.count(folder.name, "lineage")
        if written != digest:
            result.changes.append(Change(folder.name, "lineage", f"{name} (as {before.name} wrote it)", written, digest))
    return found


def _compare(expected: list[Expected], result: Verified) -> None:
    """Hashes each file once, several at a time."""
    paths = list(dict.fromkeys(one.path for one in expected))
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(paths, pool.map(_digest, paths), strict=True))
    result.size_bytes = sum(size for _, size in found.values())
    for one in expected:
        result.count(one.run, one.kind)
        digest = found[one.path][0]
        if digest != one.sha256:
            result.changes.append(Change(one.run, one.kind, one.name, one.sha256, digest))


def _digest(path: Path) -> tuple[str, int]:
    try:
        return sha256_file(path), path.stat().st_size
    except FileNotFoundError:
        return "missing", 0
    except OSError as error:
        return f"cannot be read ({error.strerror})", 0


def _named(result: Verified, run: str) -> Path:
    return next(folder for folder in result.runs if folder.name == run)
