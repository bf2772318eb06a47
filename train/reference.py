"""The reference model's log-probability of every document, computed once before step 1 and kept as a side column.

The reference is the model that the run starts from, as the engine holds it: with a fresh adapter, whose product is
zero, that is the adapter's base. So no second model is in memory, and no step pays for a second forward pass.
`objective.reference=PATH` names another one, which each rank loads whole before it is let go.

    <store>/reference/<fingerprint>/{train,validation}.npy   float64 [D]

D: documents of the part. The fingerprint is of the store, the weights and the arithmetic.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from configs import atomic
from configs.errors import ConfigError
from configs.schema import RunConfig
from configs.schema.objective import REFERENCED, START
from data_pipelines.fingerprint import hash_files
from data_pipelines.index import Store
from train import attention, distributed, models
from train.activity import enter
from train.distributed import Context, sum_over_ranks
from train.evaluate import Evaluator
from train.inference import inference
from train.inputs import Inputs
from train.learner import Learner
from train.lineage import fold
from train.scores import Scores

FOLDER = "reference"
# How the columns are computed; a change makes older ones unfit.
VERSION = 1

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class References:
    """The columns of both parts, None where nothing asks for them."""

    train: Float64 | None = None
    validation: Float64 | None = None


def read_or_compute(
    config: RunConfig, context: Context, inputs: Inputs, learner: Learner, weights: str, screen: Console | None
) -> References:
    """Returns the reference's log-probabilities, none when the objective compares with nothing. Every rank calls it.

    The learner's weights are still those of the start.

    Args:
        config: of the run. context, inputs: of this rank.
        learner: computes them, unless objective.reference names another model.
        weights: hash of the files that the run starts from.
        screen: shows one line when they are computed.

    Raises:
        ConfigError: a reference that cannot be used, or a place that cannot be written to.
    """
    if config.objective.name not in REFERENCED:
        return References()
    path = config.objective.reference
    if path != START:
        weights = fold({str(file): digest for file, digest in hash_files(_files_of(path)).items()})
    elif not config.model.path:
        weights = f"drawn: {config.model} {config.training.seed}"
    prepared = inputs.prepared
    folder = prepared.folder / FOLDER / fingerprint(prepared.fingerprint, weights, config)
    parts = {"train": prepared.train, **({"validation": prepared.validation} if prepared.validation else {})}
    # Rank 0 has looked for all: a column that appears meanwhile must not divide the ranks.
    kept = distributed.broadcast_json(all((folder / f"{name}.npy").is_file() for name in parts))
    if kept:
        columns = {name: _read(folder / f"{name}.npy", store) for name, store in parts.items()}
    else:
        if screen is not None:
            count = sum(store.num_documents for store in parts.values())
            screen.print(f"reference  {count:,} documents, once; kept in {folder}", highlight=False, soft_wrap=True)
        module = learner.module if path == START else _load(config, context, inputs, learner)
        dims, rows = learner.engine.dims, learner.rehearsal.micro_batch_size
        evaluators = {name: Evaluator(store, dims, context.device, rows, inputs.pad_id) for name, store in parts.items()}
        columns = {name: log_probabilities(module, evaluator) for name, evaluator in evaluators.items()}
        if context.is_main:
            _write(folder, columns)
    return References(columns["train"], columns.get("validation"))


def log_probabilities(module: nn.Module, evaluator: Evaluator) -> Float64:
    """Returns the sum of the log-probabilities of each document's labelled tokens, `[D]`, on every rank.

    Args:
        module: scores; without dropout whatever its mode.
        evaluator: reads this rank's share of the documents.
    """
    sums = np.zeros(evaluator.store.num_documents)
    with inference(module):
        for batch in evaluator.batches():
            enter("prepare")
            scores = module(batch).double()
            per_document = torch.zeros(len(batch.document_ids), dtype=torch.float64, device=scores.device)
            per_document.index_add_(0, batch.target_document, scores)
            real = batch.document_ids >= 0
            sums[batch.document_ids[real]] = per_document.cpu().numpy()[real]
    return np.array(sum_over_ranks(sums.tolist()))


def fingerprint(store: str, weights: str, config: RunConfig) -> str:
    """Returns the name of the columns: what they were computed from, and in which arithmetic."""
    facts = f"{VERSION} {store} {weights} {config.training.precision} {config.model.dtype} {config.training.tf32}"
    return hashlib.sha256(facts.encode()).hexdigest()[:20]


def _files_of(path: str) -> list[Path]:
    folder = Path(path).expanduser()
    files = [*sorted(folder.glob("*.safetensors")), folder / "config.json"]
    if len(files) < 2 or not files[-1].is_file():
        raise ConfigError(
            f"objective.reference={path}: no model folder (config.json and *.safetensors); give one, or "
            f"objective.reference={START} for the model that the run starts from"
        )
    return files


def _load(config: RunConfig, context: Context, inputs: Inputs, learner: Learner) -> nn.Module:
    """Returns the scores of another reference model, whole on this rank.

    Raises:
        ConfigError: it speaks another vocabulary, or the run's own model is too large for a rank.
    """
    path = config.objective.reference
    if learner.engine.is_sharded:
        raise ConfigError(
            f"objective.reference={path}: is loaded whole on every rank, which engine={config.engine.name} is there to "
            f"avoid; start from it instead (objective.reference={START}), or use engine=zero2"
        )
    model, tokenizer = models.load_exported(Path(path).expanduser(), device=context.device)
    if tokenizer.get_vocab() != inputs.tokenizer.get_vocab():
        raise ConfigError(
            f"objective.reference={path}: its vocabulary has {len(tokenizer):,} tokens and is not that of the run's model "
            f"({len(inputs.tokenizer):,}); log-probabilities of other tokens cannot be compared"
        )
    model.set_attn_implementation(attention.choose(config.model.attention, context.device)[0])
    return Scores(model.eval(), precision=config.training.precision)


def _read(path: Path, store: Store) -> Float64:
    column: Float64 = np.load(path, allow_pickle=False)
    if column.shape != (store.num_documents,) or column.dtype != np.float64:
        raise ConfigError(f"{path}: not a column of {store.num_documents} numbers; delete {path.parent} to compute it again")
    return column


def _write(folder: Path, columns: dict[str, Float64]) -> None:
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        with atomic.temporary_folder(folder) as temporary:
            for name, column in columns.items():
                path = temporary / f"{name}.npy"
                np.save(path, column, allow_pickle=False)
                path.chmod(0o600)
            atomic.publish_folder(temporary, folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}); data.store=FOLDER gives another place") from error
