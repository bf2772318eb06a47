"""Where the weights come from: the chain of stages back to the base weights, each joined to the next by hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.runfolder import read_json
from train.board.section import BoardSection, Table, Words
from train.dossier import MANIFEST, Dossier, Figure, file_hash, model_name, run_of, short, starting_files

MOST_STAGES = 16


@dataclass(frozen=True, slots=True)
class Stage:
    """A run, or the base at the beginning of all (`objective` is empty then).

    Attributes:
        given, made: name -> SHA-256 of the weight files that went in and came out.
        join: how its output is joined to the next stage's input, in words.
    """

    name: str
    origin: str
    objective: str
    given: dict[str, str]
    made: dict[str, str]
    store: str
    join: str = ""


def section(dossier: Dossier) -> BoardSection:
    """Returns one row per stage, the base first."""
    title, title_zh = "Lineage", "模型來源與譜系"
    if not dossier.manifest:
        return BoardSection(
            title, title_zh, missing=(f"There is no {MANIFEST}: the lineage of the weights is not shown.",)
        )
    stages = chain_of(dossier)
    rows = tuple(
        (
            Figure(f"{number}  {stage.name}", stage.origin),
            stage.objective or "base",
            Figure(_hashes(stage.made), f"{stage.origin}: {'outputs' if stage.objective else 'weights'}"),
            Figure(short(stage.store) or "-", f"{stage.origin}: store.fingerprint"),
            stage.join,
        )
        for number, stage in enumerate(stages)
    )
    broken = tuple(
        f"Lineage: {stage.name}: {stage.join}." for stage in stages if stage.join.startswith(("not ", "differs"))
    )
    header = (
        "stage",
        "method",
        Figure("SHA-256 of the weights", f"{MANIFEST}: weights, outputs"),
        Figure("data", f"{MANIFEST}: store.fingerprint"),
        "joined to the next by",
    )
    digest = file_hash(dossier.path / MANIFEST)
    lead = (
        "Every hash of this run is in its manifest, whose own SHA-256 is ",
        Figure(digest, f"computed from {MANIFEST}: its bytes"),
        ".",
    )
    return BoardSection(
        title,
        title_zh,
        sentences=(lead, *_parity(dossier)),
        tables=(
            Table("From the base weights (0) to this model. Hashes are shortened to twelve characters.", header, rows),
        ),
        missing=broken,
    )


def _parity(dossier: Dossier) -> tuple[Words, ...]:
    """Returns how the exported model was held against the trained one; nothing where no figure of it is on file."""
    found, origin = dossier.parity, dossier.parity_origin
    if not isinstance(found.get("logits"), float):
        return ()
    words: Words = (
        "The exported model was held against the trained one: scores differ by at most ",
        Figure(f"{found['logits']:.1e}", f"{origin}logits"),
        " of the largest (allowed: ",
        Figure(f"{found['bound']:g}", f"{origin}bound"),
        "), and ",
        Figure(f"{found['texts_equal']}", f"{origin}texts_equal"),
        " of ",
        Figure(f"{found['texts']}", f"{origin}texts"),
        " texts are equal word for word.",
    )
    return (words,)


def chain_of(dossier: Dossier) -> list[Stage]:
    """Returns the stages, the base first, this run last."""
    stages = [
        _stage(dossier.path, dict(dossier.manifest), str(dossier.section("objective").get("name", "")), MANIFEST, "")
    ]
    while len(stages) < MOST_STAGES:
        given = stages[0].given
        if not given:
            return [Stage("random weights", f"{MANIFEST}: weights", "", {}, {}, "", "nothing to compare"), *stages]
        folder = Path(next(iter(given))).parent
        run = run_of(folder)
        earlier = read_json(run / MANIFEST) if run is not None else None
        if run is None or earlier is None:
            made = {Path(path).name: digest for path, digest in given.items() if path.endswith(".safetensors")}
            return [
                Stage(
                    model_name(str(folder)),
                    f"{MANIFEST} of {stages[0].name}: weights",
                    "",
                    {},
                    made,
                    "",
                    "the hashes read at the start",
                ),
                *stages,
            ]
        stages.insert(
            0,
            _stage(
                run,
                earlier,
                _objective(run),
                f"{MANIFEST} of {run.name}",
                _join(earlier, given, released=read_json(folder.parent / "release.json")),
            ),
        )
    return stages


def _stage(path: Path, manifest: dict[str, object], objective: str, origin: str, join: str) -> Stage:
    outputs, weights, store = manifest.get("outputs"), manifest.get("weights"), manifest.get("store")
    made = (
        {name: digest for name, digest in outputs.items() if name.endswith(".safetensors")}
        if isinstance(outputs, dict)
        else {}
    )
    fingerprint = str(store.get("fingerprint", "")) if isinstance(store, dict) else ""
    # A run that was started with a relative path read it from its own working folder.
    begun = Path(str(manifest.get("working_folder", ".")))
    return Stage(
        path.name,
        origin,
        objective or "run",
        {str(begun / Path(name).expanduser()): digest for name, digest in starting_files(weights).items()} if isinstance(weights, dict) else {},
        made,
        fingerprint,
        join,
    )


def _objective(path: Path) -> str:
    """Returns the objective of an earlier run; empty when its configuration cannot be found."""
    from omegaconf import OmegaConf

    files = sorted(path.glob("attempts/*/config.yaml"))
    return str(OmegaConf.select(OmegaConf.load(files[-1]), "objective.name") or "") if files else ""


def _join(earlier: dict[str, object], given: dict[str, str], *, released: dict[str, Any] | None) -> str:
    """Returns how what an earlier run made, or released in another form, is what the next one read."""
    outputs = (released or {}).get("files", earlier.get("outputs"))
    made = set(outputs.values()) if isinstance(outputs, dict) else set()
    weights = {digest for path, digest in given.items() if path.endswith(".safetensors")}
    if not made:
        return "not shown: its manifest names no outputs"
    return "equal hashes" if weights <= made else "differs: what was read is not what this run made"


def _hashes(files: dict[str, str]) -> str:
    digests = [short(digest) for digest in files.values()]
    return (", ".join(digests[:2]) + (f" and {len(digests) - 2} more" if len(digests) > 2 else "")) or "-"
