"""A model folder in memory, and what it makes of held-out data and of plain texts. One process."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.atomic import sha256_file
from configs.errors import CheckpointError, ConfigError, UserError
from configs.reward import no_writer
from configs.runfolder import RunFolder
from configs.schema import DataSection, RunConfig, SourceSection
from configs.schema.objective import LIKELIHOOD, REFERENCED
from data_pipelines.build import prepare
from data_pipelines.index import Store, open_part
from data_pipelines.tokenize import load_tokenizer
from train import attention, reference
from train.distributed import Dims
from train.evaluate import Evaluator
from train.export import read_chat_settings
from train.held_out import Items, measure
from train.models import check_vocabulary, load_exported
from train.objectives import Documents, Objective, Sft, build_objective
from train.scores import Scores, base_model

# Longest piece of a plain text that is scored at once, in tokens.
TEXT_TOKENS = 1024


@dataclass(slots=True)
class Subject:
    """A model in memory, in evaluation mode.

    Attributes:
        precision: of the arithmetic of losses: bf16 on a GPU that has it, else fp32.
        plain_attention: what transformers gave it, for all but packed rows.
    """

    folder: Path
    model: Any
    tokenizer: Any
    device: torch.device
    precision: str
    plain_attention: str
    settings: DataSection

    @property
    def pad_id(self) -> int:
        """The id that fills up rows."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else (self.tokenizer.eos_token_id or 0))


def load_subject(folder: Path, device: torch.device) -> Subject:
    """Returns the model of `folder`, whole or an adapter around its base, on `device`."""
    model, tokenizer = load_exported(folder, device=device)
    check_vocabulary(base_model(model), tokenizer)
    precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp32":
        model.float()
    attention.register()
    plain = str(base_model(model).config._attn_implementation)
    return Subject(folder, model, tokenizer, device, precision, plain, read_chat_settings(folder))


def plain_model(subject: Subject) -> Any:
    """Returns the model as transformers loads it, for everything but packed rows."""
    base_model(subject.model).set_attn_implementation(subject.plain_attention)
    return subject.model


def score_store(subject: Subject, store: Store, rows: int, objective: Objective | None = None) -> Items:
    """Returns what `objective` (likelihood without one) measures of each item of `store`, `rows` packed rows at once."""
    base_model(subject.model).set_attn_implementation(attention.choose("auto", subject.device)[0])
    evaluator = Evaluator(store, Dims(0, 1, 1), subject.device, rows, subject.pad_id, objective or Sft())
    return measure(evaluator, Scores(subject.model, precision=subject.precision))


def score_texts(subject: Subject, files: Sequence[Path], rows: int) -> Items:
    """Returns the loss of each document of `files` (text, JSONL and so on), every token counting.

    Long documents are cut into pieces of up to 1,024 tokens, of which the first token is given; the pieces of one document are
    one item. The tokens go into a private temporary folder.
    """
    stems = [path.name.split(".")[0] for path in files]
    if len(set(stems)) < len(stems):
        raise UserError(f"two of the files are called {max(stems, key=stems.count)}; a file is told from others by its name")
    most = getattr(base_model(subject.model).config, "max_position_embeddings", None) or TEXT_TOKENS
    with tempfile.TemporaryDirectory(prefix="aisc-texts-") as folder:
        data = DataSection(
            sources={stem: SourceSection(path=str(path)) for stem, path in zip(stems, files, strict=True)},
            validation="none",
            sequence_length=min(TEXT_TOKENS, int(most)),
            overlength="split",
            workers=1,
            store=folder,
        )
        prepared = prepare(data, "cpt", str(subject.folder), seed=0, command="evaluation.forgetting")
        return score_store(subject, prepared.train, rows)


def file_hashes(files: Sequence[Path]) -> dict[str, str]:
    """Returns the SHA-256 of each file.

    Raises:
        UserError: one is not there.
    """
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    return {str(path): sha256_file(path) for path in files}


def held_out_objective(config: RunConfig, run: RunFolder, store: Store) -> Objective:
    """Returns the objective of `run` for its held-out documents.

    Raises:
        ConfigError: the log-probabilities of its reference are gone, or it is a reward model.
    """
    if config.objective.name in LIKELIHOOD:
        return Sft()
    if config.objective.name == "reward":
        raise ConfigError(no_writer(run.path, "aisc eval"))
    column = None
    if config.objective.name in REFERENCED:
        weights = str(newest_start(run)["weights"])
        name = reference.fingerprint(str(newest_start(run)["store"]), weights, config)
        path = store.folder.parent / reference.FOLDER / name / "validation.npy"
        if not path.is_file():
            raise ConfigError(f"{path}: the reference's log-probabilities of {run.name} are gone; a run on this data computes them again")
        column = np.load(path, allow_pickle=False)
    return build_objective(config.objective, Documents.of(store, column))


def held_out(run: RunFolder) -> Store:
    """Returns the held-out part of the data that `run` was made from.

    Raises:
        ConfigError: it held nothing out, or its prepared data is gone.
    """
    start = newest_start(run)
    folder = Path(str(start["store_folder"]))
    if not folder.is_dir():
        raise ConfigError(f"{folder}: the prepared data of {run.name} is gone; its YAML makes it again: aisc prepare RUN.yaml")
    store = open_part(folder, "validation")
    if store is None:
        raise ConfigError(f"{run.name}: held nothing out (data.validation=none), so there is nothing to score it on")
    if store.fingerprint != start["store"]:
        raise ConfigError(f"{folder}: is not the data of {run.name}: {store.fingerprint[:12]}.., expected {str(start['store'])[:12]}..")
    return store


def newest_start(run: RunFolder) -> dict[str, Any]:
    """Returns the facts of the run's newest start that has them.

    Raises:
        CheckpointError: it has not come so far.
    """
    for attempt in reversed(run.attempts()):
        if (start := attempt.read_start()) is not None:
            return start
    raise CheckpointError(f"{run.name}: no attempt has begun; there is no held-out data yet")


def check_same_tokens(folder: Path, tokenizer: Any, run: RunFolder) -> None:
    """Refuses a model whose tokenizer gives other ids than the one that the held-out data was made with.

    Raises:
        ConfigError: their vocabularies differ.
    """
    exported = run.path / "model"
    if folder.absolute() == exported.absolute():
        return
    paths = newest_start(run)["tokenizer_files"]
    original = Path(next(iter(paths))).parent if paths else exported
    known = next((place for place in (original, exported) if place.is_dir()), None)
    if known is not None and load_tokenizer(str(known)).get_vocab() != tokenizer.get_vocab():
        raise ConfigError(f"{folder}: has another vocabulary than {run.name}, whose held-out data is tokenised already; their losses cannot be compared")
