"""`aisc export RUN --release`: a folder that can be given away, or none at all.

    RUN/release/  model/          as trained, or merged; through the parity gate
                  README.md       model card        data_card.md
                  board.html      paper/            pages for a board, kit for a paper
                  evidence/       manifest.json config.json parity.json split.json eval/NAME.json: where each number comes from
                  release.json    SHA-256 of every file here

Everything is made under a temporary name and published by one rename. Refused: a run that is not done, a source without a
licence, a file that changed since, a tripped forgetting gate, a group on both sides of the split, outputs that differ.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs import atomic
from configs.errors import CheckpointError, ConfigError, RunFailed
from configs.reward import no_writer
from configs.runfolder import RunFolder, read_json, state_of
from configs.schema import RunConfig
from data_pipelines.index import open_part
from train.board import write_board
from train.cards import DATA_CARD, EVIDENCE, MODEL_CARD, data_card, model_card
from train.dossier import RELEASE as NAME
from train.dossier import THIS, model_name, read_dossier
from train.export import Checked, Exported, convert, held_against
from train.frozen import frozen_config
from train.paper import write_paper
from train.parity import check_folder
from train.parity_run import trained_model
from train.released import without_places
from train.verify import RELEASE_MANIFEST_NAME, Change, read_manifest, verify

LICENCES_NAME = "licences.json"
# What writes pages into the release: (run, release) -> files.
PAGES = (write_board, write_paper)
# Sections of the configuration that go along: how it was trained, not where files lie here.
SETTINGS = ("objective", "adapter", "training", "optimizer", "lr_scheduler")


@dataclass(frozen=True, slots=True)
class Released:
    """What came out: the folder, what the model in it is, how many files; `is_new` is False when it was there already."""

    folder: Path
    kind: str
    num_files: int
    is_new: bool


def release(run: RunFolder, *, merge: bool = False, dtype_name: str | None = None, licences: Mapping[str, str]) -> Released:
    """Writes RUN/release, or leaves nothing.

    Args:
        run: a finished run.
        merge, dtype_name: the model in another form, as `aisc export` writes it.
        licences: source to licence, said now; they are kept in RUN/licences.json, those of the configuration stay.

    Raises:
        UserError: not done, no licence, or another release is there.
        RunFailed: something changed since the run, a gate tripped, or outputs differ.
    """
    if state_of(run.path).state != "done" or read_json(run.result_path) is None:
        raise CheckpointError(f"{run.name}: not done ({state_of(run.path)}); only a finished run can be released")
    config = frozen_config(run)
    if config.objective.name == "reward":
        raise ConfigError(no_writer(run.path, "the parity gate of a release"))
    manifest = read_manifest(run.path)
    known = licences_of(run, config, manifest, licences)
    final = run.path / NAME
    if final.exists():
        return _already(run, final, merge=merge, dtype_name=dtype_name, licences=known)
    check_unchanged(run)
    check_forgetting(run)
    with atomic.temporary_folder(final) as temporary:
        evidence = _gather(run, manifest, temporary)
        exported = _write_model(run, temporary / "model", merge=merge, dtype_name=dtype_name)
        name_base(temporary / "model")
        evidence["parity.json"] = exported.parity
        settings = dataclasses.asdict(config)
        evidence["config.json"] = {name: settings[name] for name in SETTINGS}
        evidence = {name: without_places(values) for name, values in evidence.items()}
        (temporary / "model" / MODEL_CARD).unlink(missing_ok=True)
        for name, values in evidence.items():
            (temporary / EVIDENCE / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic.write_json(temporary / EVIDENCE / name, values)
        evaluations = [name for name in evidence if name.startswith("eval/")]
        card = model_card(evidence, kind=exported.kind, config=settings, evaluations=evaluations)
        atomic.write_file(temporary / MODEL_CARD, card)
        atomic.write_file(temporary / DATA_CARD, data_card(evidence, licences=known))
        _write_pages(run.path, temporary)
        count = _seal(run, temporary, exported, known)
        if not atomic.publish_folder(temporary, final):
            raise RunFailed(f"{final}: another release was made meanwhile; that one stays")
    return Released(final, exported.kind, count, is_new=True)


def licences_of(
    run: RunFolder, config: RunConfig, manifest: Mapping[str, Any], said: Mapping[str, str]
) -> dict[str, str]:
    """Returns the licence of every source of the run's data, and keeps those said now in the run folder.

    Raises:
        ConfigError: a source has none, or one is said of a source that the run does not have.
    """
    sources = list(manifest["account"]["sources"])
    if unknown := [name for name in said if name not in sources]:
        raise ConfigError(f"--licence {unknown[0]}=...: no such source; the run has {', '.join(sources)}")
    path = run.path / LICENCES_NAME
    kept = {**(read_json(path) or {}), **said}
    given = {name: source.licence for name, source in config.data.sources.items()}
    found = {name: kept.get(name) or given.get(name) or config.data.licence for name in sources}
    if missing := [name for name in sources if not found[name].strip()]:
        where = "data.licence" if config.data.train else f"data.sources.{missing[0]}.licence"
        raise ConfigError(
            f"{run.name}: no licence for source {', '.join(missing)}; expected {where} in its YAML, or now: "
            f"--licence {missing[0]}=CC-BY-4.0. Nothing was released"
        )
    if said:
        atomic.write_json(path, kept)
    return found


def check_unchanged(run: RunFolder) -> None:
    """Raises RunFailed naming the first files that are not what the run was made from, or wrote."""
    changes = verify(run, with_release=False).changes
    if changes:
        lines = "".join(f"\n{line}" for line in map(_line, changes[:5]))
        raise RunFailed(
            f"release refused: {len(changes):,} of the run's files changed since (aisc verify {run.name} lists them). "
            f"Nothing was released{lines}"
        )


def _line(change: Change) -> str:
    return f"{change.kind}  {change.path}: expected {change.expected[:12]}.., found {change.found[:12]}"


def check_forgetting(run: RunFolder) -> None:
    """Raises RunFailed when an evaluation of this model says that its forgetting gate tripped."""
    for evaluated in read_dossier(run.path).evaluations:
        gate = evaluated.values.get("forgetting")
        if evaluated.subject == THIS and isinstance(gate, Mapping) and gate.get("tripped"):
            raise RunFailed(f"release refused: the forgetting gate tripped ({evaluated.file}). Nothing was released")


def prove_split(store: Path) -> dict[str, int] | None:
    """Returns how many groups are on each side of the prepared data and on both; None when nothing was held out."""
    train, held_out = open_part(store, "train"), open_part(store, "validation")
    if train is None or held_out is None:
        return None
    groups, others = np.unique(train.document_group), np.unique(held_out.document_group)
    return {
        "train_groups": len(groups),
        "held_out_groups": len(others),
        "shared_groups": len(np.intersect1d(groups, others, assume_unique=True)),
    }


def _gather(run: RunFolder, manifest: Mapping[str, Any], temporary: Path) -> dict[str, Any]:
    """Returns the files of `evidence/` by name.

    Raises:
        RunFailed: the split shares groups.
    """
    evidence: dict[str, Any] = {"manifest.json": dict(manifest)}
    for evaluated in read_dossier(run.path).evaluations:
        if evaluated.subject == THIS:
            evidence[evaluated.file] = dict(evaluated.values)
    split = prove_split(Path(manifest.get("working_folder", ".")) / manifest["store"]["folder"])
    if split is not None:
        evidence["split.json"] = split
        if split["shared_groups"]:
            raise RunFailed(
                f"release refused: {split['shared_groups']:,} groups are in training and held out; the held-out loss says "
                "nothing then. Nothing was released"
            )
    return evidence


def _write_model(run: RunFolder, folder: Path, *, merge: bool, dtype_name: str | None) -> Exported:
    """Writes the model as it is or in another form, held against the run's own checkpoint either way."""
    source, trained = run.path / "model", trained_model(run)
    if merge or dtype_name:
        return convert(source, folder, merge=merge, dtype_name=dtype_name, trained=trained)
    checked: Checked = held_against(trained)
    shutil.copytree(source, folder)
    parity, _ = check_folder(folder, checked.gate, checked.expected, checked.tokenizer, torch.device("cpu"))
    kind = str((read_json(run.result_path) or {})["model_kind"])
    return Exported(folder, kind, 0, parity)


def name_base(folder: Path) -> None:
    """Makes an adapter name its base by its name: where it lies here says nothing to others, and should not."""
    path = folder / "adapter_config.json"
    values = read_json(path)
    if values is not None and values.get("base_model_name_or_path"):
        atomic.write_json(path, {**values, "base_model_name_or_path": model_name(values["base_model_name_or_path"])})


def _write_pages(run: Path, temporary: Path) -> None:
    """Writes the board's page and the paper kit.

    Raises:
        RunFailed: one could not be written.
    """
    for write in PAGES:
        try:
            write(run, temporary)
        except Exception as error:  # whatever it is: a release without its pages is none
            name = f"{write.__module__}.{write.__name__}"
            raise RunFailed(f"release refused: {name} failed ({type(error).__name__}: {error}). Nothing was released") from error


def _seal(run: RunFolder, temporary: Path, exported: Exported, licences: Mapping[str, str]) -> int:
    """Writes release.json, the hashes of everything; returns the number of files."""
    for path in temporary.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    files = {str(path.relative_to(temporary)): atomic.sha256_file(path) for path in sorted(temporary.rglob("*")) if path.is_file()}
    evaluations = sorted((run.path / "eval").glob("*.json"))
    value = {
        "run": run.name,
        "kind": exported.kind,
        "manifest": atomic.sha256_file(run.path / "manifest.json"),
        "evaluations": {f"eval/{path.name}": atomic.sha256_file(path) for path in evaluations},
        "licences": dict(licences),
        "files": files,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    atomic.write_json(temporary / RELEASE_MANIFEST_NAME, value)
    return len(files) + 1


def _already(
    run: RunFolder, final: Path, *, merge: bool, dtype_name: str | None, licences: Mapping[str, str]
) -> Released:
    """Returns the release that is there, when it is still that of this run and what is asked for now.

    Raises:
        ConfigError: it is not, it is in another form or under other licences, or evaluations came after it.
    """
    listed = read_json(final / RELEASE_MANIFEST_NAME) or {}
    evaluations = {f"eval/{path.name}": atomic.sha256_file(path) for path in sorted((run.path / "eval").glob("*.json"))}
    same = listed.get("manifest") == atomic.sha256_file(run.path / "manifest.json") and listed.get("evaluations") == evaluations
    if not same:
        raise ConfigError(f"{final}: there is an older release; the run or its evaluations changed since. Move it away and release again")
    if other := _asked_otherwise(listed, final, merge=merge, dtype_name=dtype_name, licences=licences):
        raise ConfigError(f"{final}: there is a release already, {other}. Move it away and release again")
    check_unchanged(run)
    if changes := [change for change in verify(run).changes if change.kind == "release"]:
        raise RunFailed(f"{final}: changed since it was released: {_line(changes[0])}. Move it away and release again")
    return Released(final, str(listed["kind"]), len(listed["files"]) + 1, is_new=False)


def _asked_otherwise(
    listed: Mapping[str, Any], final: Path, *, merge: bool, dtype_name: str | None, licences: Mapping[str, str]
) -> str | None:
    """Returns in what a release that is there is not the one asked for; None when it is."""
    stored = str((read_json(final / EVIDENCE / "parity.json") or {}).get("dtype"))
    if merge and listed.get("kind") != "merged":
        return f"{listed.get('kind')}; --merge asks for another one"
    if dtype_name and stored != dtype_name:
        return f"in {stored}; --dtype {dtype_name} asks for another one"
    if listed.get("licences") != dict(licences):
        return "under other licences than the run's now"
    return None
