"""A model folder scored on a run's held-out data: loss and perplexity, in total and by source. One process."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from configs import atomic
from configs.errors import CheckpointError, ConfigError
from configs.runfolder import RunFolder, read_json
from data_pipelines.index import Store, open_part
from data_pipelines.tokenize import load_tokenizer
from train import attention
from train.distributed import Dims
from train.evaluate import Evaluation, Evaluator
from train.models import check_vocabulary, load_exported
from train.scores import Scores, base_model

EVAL_NAME = "eval.json"


@dataclass(frozen=True, slots=True)
class FolderScore:
    """What one model folder came to; losses are means per learned token, in nats.

    Attributes:
        model: the folder; kind: `adapter` or `full`.
        store: fingerprint of the held-out data; documents, targets: how many, and of learned tokens.
        loss_by_source: as training reports it; perplexity: exp(loss), None when that overflows.
        device, precision: what computed it, in which arithmetic.
    """

    model: str
    kind: str
    store: str
    documents: int
    targets: int
    loss: float
    perplexity: float | None
    loss_by_source: dict[str, float]
    device: str
    precision: str
    seconds: float
    written: str


def evaluate_folder(folder: Path, run: RunFolder, *, device: torch.device, rows: int) -> FolderScore:
    """Returns the score of `folder` on what `run` held out.

    Args:
        folder: an exported model or adapter.
        run: whose held-out data.
        device: where to compute; a GPU computes in bf16 where it can, a CPU in fp32.
        rows: packed rows at once.

    Raises:
        ConfigError: the run held nothing out, or the model was made for other tokens.
    """
    began = time.monotonic()
    store = held_out(run)
    model, tokenizer = load_exported(folder, device=device)
    check_same_tokens(folder, tokenizer, run)
    check_vocabulary(base_model(model), tokenizer)
    precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp32":
        model.float()
    attention.register()
    base_model(model).set_attn_implementation(attention.choose("auto", device)[0])
    pad = tokenizer.pad_token_id
    evaluator = Evaluator(store, Dims(0, 1, 1), device, rows, pad if pad is not None else (tokenizer.eos_token_id or 0))
    result = evaluator.run(Scores(model, precision=precision))
    assert result is not None  # nobody may stop it halfway
    is_adapter = (folder / "adapter_config.json").is_file()
    return score_of(folder, "adapter" if is_adapter else "full", store, result, device, precision, time.monotonic() - began)


def score_of(
    folder: Path, kind: str, store: Store, result: Evaluation, device: torch.device, precision: str, seconds: float
) -> FolderScore:
    """Returns the figures of one evaluation with everything that they belong to."""
    return FolderScore(
        model=str(folder.absolute()),
        kind=kind,
        store=store.fingerprint,
        documents=store.num_documents,
        targets=result.targets,
        loss=result.loss,
        perplexity=result.perplexity if math.isfinite(result.perplexity) else None,
        loss_by_source=result.loss_by_source,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        precision=precision,
        seconds=round(seconds, 2),
        written=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


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


def record(run: RunFolder, score: FolderScore) -> Path:
    """Writes the score into the run's eval.json, in place of an older one of the same model; returns the file."""
    path = run.path / EVAL_NAME
    before = (read_json(path) or {}).get("evaluations", [])
    kept = [line for line in before if (line["model"], line["store"]) != (score.model, score.store)]
    atomic.write_json(path, {"evaluations": [*kept, dataclasses.asdict(score)]})
    return path
