"""The end of a run: the best weights as a model folder, result, manifest, report. Rank 0 writes, all from the run folder."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from configs import atomic
from configs.runfolder import Attempt, RunFolder, read_metrics
from configs.schema import RunConfig
from configs.schema.objective import REFERENCED, START
from configs.timekeeping import attempt_seconds, used_by
from data_pipelines.build import Prepared
from data_pipelines.index import META_NAME
from train import lineage
from train.activity import sign
from train.card import model_card
from train.export import Checked, Exported, export_kind, export_model, held_against, original_dtype
from train.parity import Trained
from train.parity_run import gate_for
from train.scores import base_model
from train.shards import TensorReader
from train.state import RunState

# Files of an attempt that nobody writes any more once the loop has ended.
RECORDS = ("start.json", "metrics.jsonl", "ledger.jsonl", "replies.jsonl")


@dataclass(frozen=True, slots=True)
class Finished:
    """What the summary shows."""

    folder: Path
    result: dict[str, Any]
    exported: Exported
    has_replies: bool

    @property
    def perplexity(self) -> str:
        """exp of the held-out losses, before and of the exported weights."""
        losses = [self.result["eval_loss_before"], self.result["eval_loss"]]
        return " -> ".join(f"{math.exp(min(loss, 700)):.2f}" for loss in losses if loss is not None)


def finish(
    attempt: Attempt,
    folder: RunFolder,
    config: RunConfig,
    prepared: Prepared,
    model: nn.Module,
    tokenizer: Any,
    reader: TensorReader,
    state: RunState,
    facts: dict[str, Any],
) -> Finished:
    """Exports the best weights and writes the run-level files; nothing when a later attempt has started.

    Args:
        attempt: the one that ends.
        folder: the run's.
        config: of the run.
        prepared: its data.
        model: as it was trained; may be sharded.
        tokenizer: goes into the export.
        reader: the best checkpoint. A merge takes the weights in memory instead, which must be the best ones.
        state: at the end.
        facts: of the start.
    """
    attempt.check_current()
    attempt.event("exporting")
    result = make_result(folder, config, state)
    manifest = make_manifest(folder, config, prepared, facts, result)
    dtype = original_dtype(config.model.path)
    exported = export_model(
        folder.path / "model",
        model,
        tokenizer,
        config.data,
        reader=reader,
        merge=config.export.merge,
        dtype=dtype,
        card=model_card(folder.name, config, prepared, manifest, result),
        checked=what_to_equal(model, tokenizer, config, prepared),
    )
    manifest["parity"] = exported.parity
    manifest["outputs"] = {
        str(path.relative_to(folder.path)): _hash(path)
        for path in sorted(exported.folder.rglob("*"))
        if path.is_file()
    }
    result["model"] = str(exported.folder)
    result["model_kind"] = exported.kind
    atomic.write_json(folder.path / "manifest.json", manifest)
    atomic.write_json(folder.result_path, result)
    has_replies = any((a.path / "replies.jsonl").exists() for a in folder.attempts())
    return Finished(folder.path, result, exported, has_replies)


def _hash(path: Path) -> str:
    sign()
    return atomic.sha256_file(path)


def what_to_equal(model: nn.Module, tokenizer: Any, config: RunConfig, prepared: Prepared) -> Checked | None:
    """Returns what a merged export must equal; None for other exports, which write what a checkpoint holds."""
    if export_kind(model, config.export.merge) != "merged":
        return None
    vocab_size = base_model(model).get_input_embeddings().weight.shape[0]
    return held_against(Trained(model, tokenizer, gate_for(prepared.validation, tokenizer, config, vocab_size)))


def make_result(folder: RunFolder, config: RunConfig, state: RunState) -> dict[str, Any]:
    """Returns the figures of a finished run; `eval_loss` is that of the exported weights."""
    return {
        "run": folder.name,
        "eval_loss_before": state.eval_loss_before,
        "eval_loss": state.best_loss,
        "eval_loss_last": state.eval_loss,
        "eval_loss_by_source": losses_by_source(folder, state.best_step),
        "eval_figures": figures_before_and_after(folder, state.best_step),
        "best_step": state.best_step,
        "steps": state.step,
        "tokens": state.tokens,
        "supervised": state.supervised,
        "ledger": state.ledger,
        "seed": config.training.seed,
        "attempts": len(folder.attempts()),
        "duration_s": round(sum(attempt_seconds(link.attempt) for link in folder.chain()), 1),
        "used": used_by(folder),
    }


def losses_by_source(folder: RunFolder, step: int | None) -> dict[str, float]:
    """Returns the held-out loss of each source at `step`, as metrics.jsonl has it."""
    line = evaluation_at(folder, step)
    return {key.split("/", 1)[1]: value for key, value in line.items() if key.startswith("eval_loss/")}


def figures_before_and_after(folder: RunFolder, step: int | None) -> dict[str, tuple[float | None, float]]:
    """Returns what else was measured than the loss, such as accuracy: before training, None if it was not, and at `step`."""
    before, after = evaluation_at(folder, 0), evaluation_at(folder, step)
    names = [key.removeprefix("eval_") for key in after if key.startswith("eval_") and not key.startswith("eval_loss")]
    return {name: (before.get(f"eval_{name}"), after[f"eval_{name}"]) for name in names}


def evaluation_at(folder: RunFolder, step: int | None) -> dict[str, Any]:
    """Returns the line of metrics.jsonl of the evaluation after `step` updates; empty when there is none."""
    lines = [line for line in read_metrics(folder.path) if line["step"] == step and "eval_loss" in line]
    return lines[-1] if lines else {}


def make_manifest(
    folder: RunFolder, config: RunConfig, prepared: Prepared, facts: dict[str, Any], result: dict[str, Any]
) -> dict[str, Any]:
    """Returns where everything came from: hashes of every byte read, code, versions, seeds, hardware."""
    return {
        "run": folder.name,
        "identity": facts["identity"],
        "data": {str(path.absolute()): digest for path, digest in prepared.input_hashes.items()},
        "working_folder": str(Path.cwd()),
        "store": {"fingerprint": prepared.fingerprint, "folder": str(prepared.folder), "files": store_files(prepared.folder)},
        "weights": facts["weight_files"],
        "tokenizer": facts["tokenizer_files"],
        "config": {
            f"attempts/{a.number}/config.yaml": atomic.sha256_file(a.config_path)
            for a in folder.attempts()
            if a.config_path.exists()
        },
        "records": record_files(folder),
        "code": {str(path.relative_to(lineage.ROOT)): atomic.sha256_file(path) for path in lineage.source_files()},
        "commit": lineage.code_commit(),
        "versions": lineage.versions(),
        "hardware": lineage.hardware(),
        "seed": config.training.seed,
        "account": prepared.account.to_json(),
        "result": result,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def store_files(store: Path) -> dict[str, dict[str, Any]]:
    """Returns size and SHA-256 of every file of a prepared folder; of a part's columns as they were when it was built."""
    known: dict[str, dict[str, Any]] = {}
    for meta_path in sorted(store.glob(f"*/{META_NAME}")):
        columns = json.loads(meta_path.read_text(encoding="utf-8"))["files"]
        known |= {f"{meta_path.parent.name}/{name}": facts for name, facts in columns.items()}
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        name = str(path.relative_to(store))
        if name not in known and not any(part.startswith(atomic.TEMPORARY_PREFIX) for part in path.parts):
            known[name] = {"bytes": path.stat().st_size, "sha256": atomic.sha256_file(path)}
    return known


def record_files(folder: RunFolder) -> dict[str, str]:
    """Returns the SHA-256 of what each attempt that counts wrote of its training, all of it closed by now."""
    paths = [link.attempt.path / name for link in folder.chain() for name in RECORDS]
    return {str(path.relative_to(folder.path)): atomic.sha256_file(path) for path in paths if path.is_file()}


def weight_files(config: RunConfig) -> list[Path]:
    """Returns weight files and config.json of the starting model, then of another reference, absolute; none for random weights."""
    if not config.model.path:
        return []
    objective = config.objective
    others = [objective.reference] if objective.name in REFERENCED and objective.reference != START else []
    folders = [Path(path).expanduser().absolute() for path in (config.model.path, *others)]
    return [path for folder in folders for path in (*sorted(folder.glob("*.safetensors")), folder / "config.json")]
