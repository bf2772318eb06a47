"""What `aisc eval` is asked to score: a run, one of its checkpoints, or any model folder; as a folder of weights. Torch-free until then."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from configs.atomic import sha256_file
from configs.errors import ConfigError
from configs.runfolder import RunFolder
from configs.schema import RunConfig
from train.checkpoint_reading import checkpoint_of
from train.dossier import model_name
from train.evaluation_file import FOLDER
from train.frozen import frozen_config

RUN, CHECKPOINT, OTHER = "run", "checkpoint", "folder"


@dataclass(frozen=True, slots=True)
class Target:
    """A model to score.

    Attributes:
        kind: run (its exported model), checkpoint (of `step`), or folder.
        run: whose it is; None of a folder that is no run's.
        folder: of the model; of a checkpoint the run's own, which has no weights of that step.
    """

    kind: str
    run: RunFolder | None
    folder: Path
    step: int | None = None

    @property
    def label(self) -> str:
        """How screens and files call it."""
        if self.run is None:
            return str(self.folder)
        return f"{self.run.name}@{self.step}" if self.step is not None else self.run.name


def base_of(config: RunConfig) -> Path:
    """Returns the folder of the model that a run began from, or the one that it is told to compare with.

    Raises:
        ConfigError: it began from random weights.
    """
    given = config.evaluation.base or config.model.path
    if not given:
        raise ConfigError("evaluation.forgetting: the run began from random weights, so there is nothing it could forget; evaluation.base=FOLDER names a model to compare with")
    return Path(given).expanduser()


@contextlib.contextmanager
def weights_folder(target: Target) -> Iterator[Path]:
    """Yields the model folder of `target`; a checkpoint is exported to a temporary one as its run would have been."""
    if target.kind != CHECKPOINT:
        yield target.folder
        return
    assert target.run is not None and target.step is not None
    checkpoint = checkpoint_of(target.run, target.step)
    from train.checkpoint_export import export_checkpoint

    with tempfile.TemporaryDirectory(prefix=".tmp-eval-", dir=target.run.path) as temporary:
        yield export_checkpoint(checkpoint, frozen_config(target.run), Path(temporary) / "model")


def weight_hashes(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of the weight files in `folder`, by name."""
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}


def score_name(target: Target, weights: dict[str, str], home: RunFolder | None) -> str:
    """Returns the name of the target's file in the `eval/` of run `home`: its own things are known, others need a hash."""
    is_own = target.run is not None and home is not None and target.run.path.absolute() == home.path.absolute()
    if is_own or home is None:
        if target.kind == RUN:
            return "model"
        if target.kind == CHECKPOINT:
            return f"step-{target.step}"
    digest = hashlib.sha256("".join(weights.values()).encode()).hexdigest()[:6]
    stem = target.label if target.run is not None else model_name(str(target.folder.absolute()))
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', stem)}-{digest}"


def output_folder(target: Target, on: RunFolder | None, output: str | None) -> Path:
    """Returns where the scores of `target` go: --output, the `eval/` of the run whose data counts, else that of the current folder."""
    if output is not None:
        return Path(output).expanduser()
    run = on or target.run
    return run.path / FOLDER if run is not None else Path(FOLDER)
