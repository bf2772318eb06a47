"""What is on file about a run: its folder's files read once, for pages and papers. Files only, no torch; what is absent is empty.

The evaluations lie in `eval/NAME.json`; each says by the hashes of its weights which model it measured: the run's, the one
that it started from, or another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from configs.atomic import sha256_file
from configs.errors import CheckpointError, UserError
from configs.runfolder import RunFolder, Status, read_events, read_json, read_metrics, state_of

MANIFEST, RESULT, RELEASE = "manifest.json", "result.json", "release"
THIS, BASE, OTHER = "this model", "starting model", "another model"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, name or hash as it is shown, and where it comes from: `FILE: KEY`; `computed from ...` where it is derived."""

    text: str
    origin: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of one task: value, and its 95 % interval where the evaluation has one; `n` is how many items."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    higher_is_better: bool | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval; None when there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Task:
    """A task of an evaluation. `is_check` marks one that only shows that the harness works: its values are no scores."""

    name: str
    pack: str
    is_check: bool
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One file of `eval/`; `subject` is THIS, BASE or OTHER."""

    file: str
    subject: str
    model: str
    tasks: tuple[Task, ...]
    written: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dossier:
    """Everything that the run folder says.

    Attributes:
        account: what was read and learned from; account_origin: the file and key that has it.
        config: the frozen configuration of the newest attempt as plain values; config_origin: its file.
        metrics: the lines of steps and evaluations along the chain of attempts.
        licences: of sources, where they were said at a release. parity: what the exported model was held against.
        released: folder of the release that the pages are made for; None before there is one.
    """

    path: Path
    status: Status
    manifest: Mapping[str, Any]
    result: Mapping[str, Any]
    config: Mapping[str, Any]
    config_origin: str
    account: Mapping[str, Any]
    account_origin: str
    start: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    metrics: tuple[Mapping[str, Any], ...]
    evaluations: tuple[Evaluated, ...]
    goodput: Mapping[str, Any]
    plan: Mapping[str, Any]
    licences: Mapping[str, Any]
    parity: Mapping[str, Any]
    parity_origin: str
    released: Path | None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    def section(self, name: str) -> Mapping[str, Any]:
        """Returns a section of the configuration; empty when the run had none such."""
        found = self.config.get(name)
        return found if isinstance(found, Mapping) else {}

    def setting(self, key: str) -> Figure:
        """Returns a setting of the configuration, `SECTION.NAME`; `-` where it is null or absent."""
        section, _, name = key.partition(".")
        value = self.section(section).get(name)
        return Figure("-" if value is None else str(value), f"{self.config_origin}: {key}")

    def of(self, subject: str) -> Iterator[tuple[Evaluated, Task]]:
        """Yields the tasks that measured `subject`, the newest file last."""
        for evaluated in self.evaluations:
            if evaluated.subject == subject:
                yield from ((evaluated, task) for task in evaluated.tasks)


def read_dossier(path: Path, released: Path | None = None) -> Dossier:
    """Returns what is on file about the run in folder `path`; `released` is a release of it that is being made.

    Raises:
        UserError: the folder holds no attempt of a run.
    """
    run = RunFolder(path)
    frozen = [attempt for attempt in run.attempts() if attempt.config_path.exists()]
    if not frozen:
        raise UserError(f"{path}: no attempt with a configuration in it; expected the folder of a run that has started")
    manifest = read_json(path / MANIFEST) or {}
    config = _settings(frozen[-1].config_path)
    start = frozen[-1].read_start() or {}
    account, origin = _account(manifest, start)
    parity = read_json(released / "evidence" / "parity.json") if released else None
    return Dossier(
        path=path,
        status=state_of(path),
        manifest=manifest,
        result=read_json(path / RESULT) or {},
        config=config,
        config_origin=str(frozen[-1].config_path.relative_to(path)),
        account=account,
        account_origin=origin,
        start=start,
        events=tuple(read_events(path)),
        metrics=tuple(read_metrics(path)),
        evaluations=_evaluations(path, manifest, start),
        goodput=read_json(path / "goodput.json") or {},
        plan=read_json(path / "plan.json") or {},
        licences=read_json(path / "licences.json") or {},
        parity=parity or manifest.get("parity") or {},
        parity_origin="evidence/parity.json: " if parity else f"{MANIFEST}: parity.",
        released=released,
    )


def _settings(path: Path) -> dict[str, Any]:
    """Returns a frozen configuration as plain values.

    Raises:
        CheckpointError: it is no longer what the run wrote.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: damaged, no longer what the run wrote; aisc verify says more") from error
    return {str(name): value for name, value in values.items()} if isinstance(values, dict) else {}


def _account(manifest: Mapping[str, Any], start: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Returns the account of the data: of the manifest, of an unfinished run that of its prepared folder."""
    if "account" in manifest:
        return manifest["account"], f"{MANIFEST}: account"
    if "store_folder" in start:
        account = read_json(Path(start["store_folder"]) / "account.json")
        if account is not None:
            return account, "account.json of the prepared data: account"
    return {}, ""


def _evaluations(path: Path, manifest: Mapping[str, Any], start: Mapping[str, Any]) -> tuple[Evaluated, ...]:
    """Returns the files of `eval/` that hold tasks, the oldest first."""
    mine = {digest for name, digest in manifest.get("outputs", {}).items() if name.endswith(".safetensors")}
    given = starting_files(manifest.get("weights") or start.get("weight_files") or {})
    base = {digest for name, digest in given.items() if name.endswith(".safetensors")}
    found = []
    for file in sorted((path / "eval").glob("*.json")):
        values = read_json(file) or {}
        if not isinstance(values.get("tasks"), dict):
            continue
        weights = set(dict(values.get("weights") or {}).values())
        subject = THIS if weights & mine else BASE if weights & base else OTHER
        tasks = tuple(_task(name, task) for name, task in values["tasks"].items())
        written = str(values.get("written", ""))
        found.append(Evaluated(f"eval/{file.name}", subject, str(values.get("model", "")), tasks, written, values))
    return tuple(sorted(found, key=lambda one: (one.written, one.file)))


def starting_files(given: Mapping[str, str]) -> dict[str, str]:
    """Returns those of the weight files that a run read which it started from; behind them are those of another reference."""
    folder = Path(next(iter(given), "")).parent
    return {name: digest for name, digest in given.items() if Path(name).parent == folder}


def _task(name: str, values: Mapping[str, Any]) -> Task:
    measures = tuple(
        Measure(
            metric,
            float(one["value"]),
            low=one.get("low"),
            high=one.get("high"),
            n=one.get("n"),
            higher_is_better=one.get("higher_is_better"),
        )
        for metric, one in values.get("metrics", {}).items()
        if isinstance(one.get("value"), (int, float))
    )
    return Task(name, str(values.get("pack", "")), bool(values.get("check")), measures)


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file of the run folder; empty when it is not there."""
    return sha256_file(path) if path.is_file() else ""


def short(digest: object) -> str:
    """Returns the first twelve characters of a hash."""
    return str(digest)[:12]


def run_of(folder: Path) -> Path | None:
    """Returns the folder of the run whose `model/` or `release/model/` is `folder`; None of any other name."""
    if folder.name != "model":
        return None
    return folder.parent.parent if folder.parent.name == RELEASE else folder.parent


def model_name(path: str) -> str:
    """Returns what the model at `path` is called: its folder, or the run whose `model/` or `release/model/` it is."""
    folder = Path(path)
    run = run_of(folder)
    return run.name if run is not None and run.name else folder.name
