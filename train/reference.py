"""The reference model's log-probability of every document, computed once before step 1 and kept as a side column.

The reference is the model that the run starts from, as the engine holds it: with a fresh adapter, whose product is
zero, that is the adapter's base. So no second model is in memory, and no step pays for a second forward pass.
`objective.reference=PATH` names another one, which each rank loads whole before it is let go.

    <store>/reference/<fingerprint>/{train,validation}.npy   float64 [D]

D: documents of the part. The fingerprint is of the store, the weights and the arithmetic. A pass that was stopped leaves
`.tmp-<fingerprint>.begun.npy`, from which the next start goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
from train.distributed import Context, sum_over_ranks
from train.evaluate import Evaluator
from train.inputs import Inputs
from train.learner import Learner
from train.lineage import fold
from train.reference_pass import Column, advance, pass_progress, rows_left
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


class PassStopped(Exception):
    """Somebody asked the run to stop while the reference's log-probabilities were computed; what is known is kept."""


def read_or_compute(
    config: RunConfig,
    context: Context,
    inputs: Inputs,
    learner: Learner,
    weights: str,
    screen: Console | None,
    stop_wanted: Callable[[], bool] | None = None,
) -> References:
    """Returns the reference's log-probabilities, none when the objective compares with nothing. Every rank calls it.

    The learner's weights are still those of the start.

    Args:
        config: of the run. context, inputs: of this rank.
        learner: computes them, unless objective.reference names another model.
        weights: hash of the files that the run starts from.
        screen: shows that they are computed.
        stop_wanted: asked on every rank after each batch; one that says yes stops all.

    Raises:
        ConfigError: a reference that cannot be used, or a place that cannot be written to.
        PassStopped: on all ranks; the next start computes what is missing.
    """
    if config.objective.name not in REFERENCED:
        return References()
    path, prepared = config.objective.reference, inputs.prepared
    folder = prepared.folder / FOLDER / fingerprint(prepared.fingerprint, weights, config)
    parts = {"train": prepared.train, **({"validation": prepared.validation} if prepared.validation else {})}
    # Rank 0 has looked for all: a column that appears meanwhile must not divide the ranks.
    kept = distributed.broadcast_json(all((folder / f"{name}.npy").is_file() for name in parts))
    if kept:
        columns = {name: _read(folder / f"{name}.npy", store) for name, store in parts.items()}
        return References(columns["train"], columns.get("validation"))
    module = learner.module if path == START else _load(config, context, inputs, learner)
    dims, rows = learner.engine.dims, learner.rehearsal.micro_batch_size
    evaluators = {name: Evaluator(store, dims, context.device, rows, inputs.pad_id) for name, store in parts.items()}
    columns = _compute(folder, module, evaluators, screen, stop_wanted, is_main=context.is_main)
    return References(columns["train"], columns.get("validation"))


def _compute(
    folder: Path,
    module: nn.Module,
    evaluators: dict[str, Evaluator],
    screen: Console | None,
    stop_wanted: Callable[[], bool] | None,
    *,
    is_main: bool,
) -> dict[str, Float64]:
    """Returns the columns of all parts, which rank 0 writes to `folder`; a pass that was stopped leaves a file beside it."""
    stores = {name: evaluator.store for name, evaluator in evaluators.items()}
    if is_main:
        _check_place(folder)
    begun = _shared(_begun(folder, stores) if is_main else None, stores)
    if screen is not None:
        known = sum(int(column.done.sum()) for column in begun.values())
        count = f"{sum(store.num_documents for store in stores.values()):,} documents"
        count += f", {known:,} of them known from before" if known else ""
        screen.print(f"reference  {count}, once; kept in {folder}", highlight=False, soft_wrap=True)
    total = sum(len(rows_left(store, begun[name])) for name, store in stores.items())
    with pass_progress(screen, total) as show:
        for name, evaluator in evaluators.items():
            begun[name] = advance(module, evaluator, begun[name], stop_wanted, show)
            if not begun[name].is_complete:
                break
    _check_finite(begun, stores)
    if not all(column.is_complete for column in begun.values()):
        if is_main:
            _write_begun(folder, begun)
        raise PassStopped
    columns = {name: column.sums for name, column in begun.items()}
    if is_main:
        _write(folder, columns)
        _begun_path(folder).unlink(missing_ok=True)
    return columns


def _check_finite(columns: dict[str, Column], stores: dict[str, Store]) -> None:
    """Refuses a reference that gives some document no finite log-probability, before that is kept.

    Raises:
        ConfigError: with how many they are and where the first one is.
    """
    for name, column in columns.items():
        bad = np.flatnonzero(~np.isfinite(column.sums))
        if len(bad):
            source, line = stores[name].origin(int(bad[0]))
            raise ConfigError(
                f"objective.reference: the log-probability of {len(bad):,} of {len(column.sums):,} documents is not finite, "
                f"the first at line {line} of {source}; expected weights that give numbers: look at them, or at "
                "training.precision"
            )


def fingerprint(store: str, weights: str, config: RunConfig) -> str:
    """Returns the name of the columns: what they were computed from, and in which arithmetic.

    Args:
        store: fingerprint of the data.
        weights: hash of the files that the run starts from; they count when the reference is the start.
        config: of the run.

    Raises:
        ConfigError: objective.reference names no model folder.
    """
    path = config.objective.reference
    if path != START:
        weights = fold({str(file): digest for file, digest in hash_files(_files_of(path)).items()})
    elif not config.model.path:
        weights = f"drawn: {dataclasses.replace(config.model, tokenizer=None)} {config.training.seed}"
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


def _begun_path(folder: Path) -> Path:
    # A temporary name: the manifest of another run on this data does not list what will be gone.
    return folder.with_name(f"{atomic.TEMPORARY_PREFIX}{folder.name}.begun.npy")


def _begun(folder: Path, stores: dict[str, Store]) -> dict[str, Column]:
    """Returns what a pass that was stopped has left: the columns of all parts in one file, NaN where nothing is known."""
    counts = [store.num_documents for store in stores.values()]
    try:
        values: Float64 = np.load(_begun_path(folder), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        values = np.full(0, np.nan)
    if values.shape != (sum(counts),) or values.dtype != np.float64:
        values = np.full(sum(counts), np.nan)
    parts = np.split(values, np.cumsum(counts)[:-1])
    return {name: Column(np.nan_to_num(part, nan=0.0), ~np.isnan(part)) for name, part in zip(stores, parts, strict=True)}


def _shared(begun: dict[str, Column] | None, stores: dict[str, Store]) -> dict[str, Column]:
    """Returns rank 0's columns on every rank; None: of the other ranks."""
    found = {}
    for name, store in stores.items():
        own = begun[name] if begun is not None else Column.empty(store)
        sums = np.array(sum_over_ranks([*own.sums.tolist(), *own.done.astype(float).tolist()])).reshape(2, -1)
        found[name] = Column(sums[0], sums[1] > 0)
    return found


def _write_begun(folder: Path, columns: dict[str, Column]) -> None:
    content = io.BytesIO()
    values = [np.where(column.done, column.sums, np.nan) for column in columns.values()]
    np.save(content, np.concatenate(values), allow_pickle=False)
    try:
        atomic.write_file(_begun_path(folder), content.getvalue())
    except OSError as error:
        raise _unwritable(folder, error) from error


def _write(folder: Path, columns: dict[str, Float64]) -> None:
    try:
        with atomic.temporary_folder(folder) as temporary:
            for name, column in columns.items():
                path = temporary / f"{name}.npy"
                np.save(path, column, allow_pickle=False)
                path.chmod(0o600)
            atomic.publish_folder(temporary, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _check_place(folder: Path) -> None:
    """Refuses a place that cannot be written to before the pass, which may take hours.

    Raises:
        ConfigError: the store is somebody else's, for example.
    """
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        with atomic.temporary_folder(folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{folder}: cannot be written ({error.strerror}); data.store=FOLDER gives another place")
