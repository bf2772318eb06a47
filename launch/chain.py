"""A chain's folder: its stages, their runs inside it, what each handed on. Reads and writes files only; torch-free.

    runs/NAME-2b81f0/chain.json              stages in their order, their states, hashes of what was handed on
    runs/NAME-2b81f0/NAME-2b81f0-sft/        the run of stage sft: a run folder like any other, with its launch.yaml
    runs/NAME-2b81f0/NAME-2b81f0-dpo/        began from .../NAME-2b81f0-sft/model; holds eval/ and release/ of the chain's end

Six characters of what each stage is; what is evaluated and how it is released make no other chain.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from configs import atomic
from configs.chain import EVALUATE, RELEASE
from configs.errors import CheckpointError, LaunchError
from configs.runfolder import RunFolder, read_json, state_of

FILE, MODEL, MANIFEST = "chain.json", "model", "manifest.json"
# Held by the command that runs or submits the chain, and by whoever reads chain.json to write it again.
LOCK, CHANGE_LOCK = ".lock", ".chain.lock"
# Longest waits: for somebody who only looks whether it is held, and for a change, milliseconds where the disk answers.
HELD_WAIT_S, CHANGE_WAIT_S, _POLL_S = 1.0, 60.0, 0.02
# Files of an evaluation and of a release that later commands compare.
MADE = {EVALUATE: "eval", RELEASE: "release"}


@dataclass(slots=True, kw_only=True)
class StageState:
    """One stage in chain.json.

    Attributes:
        kind: train, evaluate or release; run: name of its run folder, of the last two that of the last training.
        identity: of a training its configuration's, with names of stages for folders; else a hash of what it was told.
        state: waiting, running, done, stopped, failed or cancelled; cause: one sentence.
        former: the stage whose model it takes; None of the first.
        taken: SHA-256 of each file of that model as it was verified before this stage began.
        made: SHA-256 of each file that this stage made for others, by its name below the run's folder.
    """

    name: str
    kind: str
    run: str
    identity: str
    former: str | None
    state: str = "waiting"
    cause: str = ""
    began: float | None = None
    ended: float | None = None
    taken: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class ChainInfo:
    """chain.json: `folder` is the working directory, which relative paths mean; `command` made it."""

    stem: str
    folder: str
    command: str
    created: float
    stages: list[StageState]


@dataclass(frozen=True, slots=True)
class ChainFolder:
    """A chain's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def short(self) -> str:
        """The six characters by which commands know it."""
        return self.name.rsplit("-", 1)[-1]

    def run_of(self, stage: str) -> RunFolder:
        """Returns the run folder of a training stage."""
        return RunFolder(self.path / f"{self.name}-{stage}")

    def info(self) -> ChainInfo:
        """Returns chain.json.

        Raises:
            LaunchError: this is no chain's folder.
        """
        try:
            values = read_json(self.path / FILE)
            if values is None:
                raise LaunchError(f"{self.path}: no {FILE} there; expected the folder of a chain")
            return ChainInfo(**{**values, "stages": [StageState(**stage) for stage in values["stages"]]})
        except (CheckpointError, TypeError, KeyError) as error:
            raise LaunchError(
                f"{self.path / FILE}: damaged, or of another version. Remove it and give the chain's command again: stages that are "
                "trained are found by their run folders"
            ) from error

    def write(self, info: ChainInfo) -> None:
        """Writes chain.json."""
        atomic.write_json(self.path / FILE, asdict(info))

    def stage(self, name: str) -> StageState:
        """Returns a stage of chain.json.

        Raises:
            LaunchError: it has none of that name.
        """
        for stage in self.info().stages:
            if stage.name == name:
                return stage
        raise LaunchError(f"{self.name}: no stage {name}")

    def change(self, name: str, **values: Any) -> StageState:
        """Changes one stage in chain.json and returns it; a job and a command may do so at the same time.

        Raises:
            LaunchError: it has no such stage, or somebody else keeps chain.json.
        """
        with self.changing():
            info = self.info()
            for stage in info.stages:
                if stage.name == name:
                    for key, value in values.items():
                        setattr(stage, key, value)
                    self.write(info)
                    return stage
        raise LaunchError(f"{self.name}: no stage {name}")

    def changing(self) -> contextlib.AbstractContextManager[None]:
        """Holds chain.json while it is read and written again: a moment, never while files are hashed."""
        busy = f"{self.path / FILE}: another process has kept it for {CHANGE_WAIT_S:.0f} s; look at its disk, then try again"
        return _locked(self.path / CHANGE_LOCK, CHANGE_WAIT_S, busy)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Holds the chain: of two commands at once one goes on and the other is refused with a LaunchError."""
        busy = f"{self.name}: another command runs this chain; its state: aisc runs show {self.short}"
        return _locked(self.path / LOCK, HELD_WAIT_S, busy)

    def is_held(self) -> bool:
        """True while a command runs or submits the chain, or when that cannot be known."""
        try:
            number = os.open(self.path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except OSError:
            return True
        finally:
            os.close(number)


@contextlib.contextmanager
def _locked(path: Path, wait_s: float, busy: str) -> Iterator[None]:
    """Holds the lock file `path`; the kernel lets it go when its holder dies, on NFS the server does (flock, Linux >= 2.6.12).

    Raises:
        LaunchError: another process holds it after `wait_s`: `busy`; or its file system has no locks.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise LaunchError(busy) from error
                time.sleep(_POLL_S)
            except OSError as error:
                raise LaunchError(f"{path}: its file system has no locks ({error.strerror}); give another folder: run.dir=FOLDER") from error
        yield
    finally:
        os.close(number)


def chain_hash(identities: Sequence[tuple[str, str]]) -> str:
    """Returns six characters for a chain's stages, (name, identity) each."""
    return hashlib.sha256(json.dumps(list(identities)).encode()).hexdigest()[:6]


def all_chains(parent: Path) -> list[ChainFolder]:
    """Returns the chains in `parent`, newest first."""
    found = [path.parent for path in parent.glob(f"*/{FILE}")]
    return [ChainFolder(path) for path in sorted(found, key=lambda path: (path / FILE).stat().st_mtime, reverse=True)]


def find_chain(text: str, parent: Path) -> ChainFolder | None:
    """Returns the chain that `text` means: a folder, a name, its six characters, or the newest of a first part."""
    path = Path(text).expanduser()
    if (path / FILE).is_file():
        return ChainFolder(path)
    chains = all_chains(parent)
    exact = [chain for chain in chains if text in (chain.name, chain.short)]
    return next(iter([*exact, *(chain for chain in chains if chain.name.startswith(f"{text}-"))]), None)


def verified_model(run: RunFolder) -> dict[str, str]:
    """Returns the SHA-256 of each file of a finished run's model, which are those of its manifest.

    Raises:
        CheckpointError: a file was changed, is missing, or was added; nothing may begin from it.
    """
    found = file_hashes(run.path, MODEL)
    compare(run, written_model(run), found)
    return found


def written_model(run: RunFolder) -> dict[str, str]:
    """Returns the SHA-256 of each file of a finished run's model as its manifest names them.

    Raises:
        CheckpointError: it has no manifest.
    """
    manifest = read_json(run.path / MANIFEST)
    if manifest is None or "outputs" not in manifest:
        raise CheckpointError(f"{run.path / MANIFEST}: missing or damaged; expected what a finished run writes")
    return {name: digest for name, digest in manifest["outputs"].items() if name.startswith(f"{MODEL}/")}


def compare(run: RunFolder, expected: dict[str, str], found: dict[str, str]) -> None:
    """Raises CheckpointError that names the files in which `found` is not what `run` wrote."""
    lines = [f"{run.path / name}: {_said(found.get(name))}, expected {digest[:12]}.." for name, digest in expected.items() if found.get(name) != digest]
    lines += [f"{run.path / name}: not written by the run" for name in found if name not in expected]
    if lines or not expected:
        lines = lines or [f"{run.path}: no files are recorded"]
        raise CheckpointError("\n".join([f"{run.name} was changed since it was made; nothing goes on from it.", *lines, f"All of it: aisc verify {run.path}"]))


def _said(digest: str | None) -> str:
    return "missing" if digest is None else f"is {digest[:12]}.."


def file_hashes(run: Path, folder: str) -> dict[str, str]:
    """Returns the SHA-256 of every file below `run/folder`, by its name below `run`."""
    return {str(path.relative_to(run)): atomic.sha256_file(path) for path in sorted((run / folder).rglob("*")) if path.is_file()}


def begin(chain: ChainFolder, name: str) -> None:
    """Verifies what a stage takes, and records it and that it runs.

    Raises:
        CheckpointError: the former stage's model is not what that stage wrote, or a finished training began from another one.
    """
    stage = chain.stage(name)
    taken = verified_model(chain.run_of(stage.former)) if stage.former else {}
    if stage.kind == "train" and is_over(chain, stage):
        check_origin(chain, stage, taken)
    chain.change(name, state="running", cause="", began=time.time(), ended=None, taken=taken, made={})


def end(chain: ChainFolder, name: str, state: str, cause: str = "") -> None:
    """Records how a stage ended, and of one that is done what it made.

    Raises:
        CheckpointError: what it says it made is not there.
    """
    made = made_by(chain, chain.stage(name)) if state == "done" else {}
    chain.change(name, state=state, cause=cause, ended=time.time(), made=made)


def made_by(chain: ChainFolder, stage: StageState) -> dict[str, str]:
    """Returns the hashes of what a stage that is done made; of a training those that its manifest names."""
    run = RunFolder(chain.path / stage.run)
    return written_model(run) if stage.kind == "train" else file_hashes(run.path, MADE[stage.kind])


def is_over(chain: ChainFolder, stage: StageState) -> bool:
    """True when a stage came to its end: a training by its run folder, another one by chain.json."""
    run = RunFolder(chain.path / stage.run)
    return (state_of(run.path).state == "done" and run.result_path.exists()) if stage.kind == "train" else stage.state == "done"


def check_origin(chain: ChainFolder, stage: StageState, found: dict[str, str]) -> None:
    """Raises CheckpointError when a training began from another model of the stage before than the one found there now."""
    if stage.former and stage.taken and stage.taken != found:
        run = chain.path / stage.run
        raise CheckpointError(
            f"{run.name}: began from another model of stage {stage.former} than {chain.run_of(stage.former).path / MODEL} holds now; "
            f"to train it again from that one, remove {run}"
        )


def is_done(chain: ChainFolder, stage: StageState) -> bool:
    """True when a stage need not run again; what it made, and what it was made from, is verified.

    Raises:
        CheckpointError: it is done, but a model or a release was changed since.
    """
    if not is_over(chain, stage):
        return False
    run = RunFolder(chain.path / stage.run)
    if stage.former and stage.taken:
        former = verified_model(chain.run_of(stage.former))
        if stage.kind != "train" and stage.taken != former:
            return False
        check_origin(chain, stage, former)
    if stage.kind == "train":
        verified_model(run)
        return True
    found = file_hashes(run.path, MADE[stage.kind])
    if stage.kind == RELEASE:
        compare(run, stage.made, found)
    return bool(stage.made) and all(found.get(name) == digest for name, digest in stage.made.items())
