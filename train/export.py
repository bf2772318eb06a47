"""A trained model as a plain Hugging Face folder: what transformers alone can load and generate from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs import atomic
from configs.errors import ConfigError
from configs.schema import DataSection
from data_pipelines.prompts import stop_ids
from train.export_weights import plan_weights, saved_buffers, write_weights
from train.models import check_vocabulary, load_exported
from train.optimizer import whole_shape
from train.parity import (
    BOUNDS,
    Gate,
    Observed,
    Trained,
    check_folder,
    check_same,
    fixed_gate,
    largest_difference,
    logits_of,
    observe,
    refused,
    tokenizer_facts,
)
from train.scores import base_model
from train.shards import TensorReader

CHAT_SETTINGS_NAME = "aisc.json"
PARITY_NAME = "parity.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the folder, `adapter`, `merged` or `full`, the size in bytes, the figures of the parity gate."""

    folder: Path
    kind: str
    size_bytes: int
    parity: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a written folder is compared with before anybody sees it."""

    gate: Gate
    expected: Observed
    tokenizer: dict[str, Any]


def held_against(trained: Trained) -> Checked:
    """Returns the answers of a trained model; it may be merged or let go afterwards."""
    return Checked(trained.gate, observe(trained.model, trained.gate), tokenizer_facts(trained.tokenizer))


def export_model(
    folder: Path,
    model: nn.Module,
    tokenizer: Any,
    data: DataSection,
    *,
    reader: TensorReader | None,
    merge: bool,
    dtype: torch.dtype,
    card: str,
    checked: Checked | None = None,
) -> Exported:
    """Writes `model` to `folder`, under a temporary name first; an older export there is replaced.

    Args:
        folder: where to.
        model: a transformers model, or a peft model around one; sharded or empty ones do when there is a reader.
        tokenizer: saved beside the weights with its chat template.
        data: its system prompt and template arguments are stored for `aisc chat`.
        reader: has the trained weights as `model.NAME`: a checkpoint. None: they are those in memory.
        merge: write merged weights instead of an adapter: those in memory, which this merges.
        dtype: type of the exported weights (adapters keep theirs).
        card: text of README.md.
        checked: what the written folder must equal; None: not compared, as nothing was computed to write it.

    Raises:
        RunFailed: merged weights, or the folder read back, differ from the trained model. The older export is still there.
    """
    kind = export_kind(model, merge)
    if kind == "merged":
        model, reader = merge_adapter(model, checked.gate if checked else None), None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic.temporary_folder(folder) as temporary:
        if kind == "adapter":
            _save_adapter(temporary, model, reader)
        else:
            write_weights(temporary, plan_weights(model, dtype), model, reader, dtype)
        _save_configs(temporary, base_model(model), None if kind == "adapter" else dtype)
        tokenizer.save_pretrained(temporary)
        settings = {"system_prompt": data.system_prompt, "template_args": data.template_args}
        atomic.write_json(temporary / CHAT_SETTINGS_NAME, settings)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        parity = None
        if checked is not None:
            device = next(model.parameters()).device
            parity, found = check_folder(temporary, checked.gate, checked.expected, checked.tokenizer, device)
            if kind != "adapter" and reader is None:
                parity["written"] = check_written(model, found, checked.gate, dtype)
            atomic.write_json(temporary / PARITY_NAME, parity)
        for path in temporary.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        if folder.exists():
            atomic.remove_folder(folder)
        atomic.publish_folder(temporary, folder)
    return Exported(folder, kind, size, parity)


def export_kind(model: nn.Module, merge: bool) -> str:
    """Returns what an export of `model` is: `adapter`, `merged` or `full`."""
    if not hasattr(model, "peft_config"):
        return "full"
    return "merged" if merge else "adapter"


def check_export(model: nn.Module, *, merge: bool, is_sharded: bool, dtype: torch.dtype) -> int:
    """Returns the bytes of weights that an export of `model` will have; before the first step, so that it will work.

    Raises:
        ConfigError: weights have no form outside this program, or a merge would need the whole model in one process.
    """
    kind = export_kind(model, merge)
    if kind == "merged" and is_sharded:
        raise ConfigError(
            "export.merge=true: this engine shares the model out and no process holds it whole. Leave it out: the run "
            "ends with the adapter, and `aisc export RUN --merge` merges it afterwards"
        )
    if kind == "full":
        return plan_weights(model, dtype).nbytes
    shapes = [(whole_shape(p), p.dtype) for p in model.parameters() if kind == "merged" or p.requires_grad]
    return sum(prod(shape) * (dtype if kind == "merged" else own).itemsize for shape, own in shapes)


def _save_adapter(folder: Path, model: Any, reader: TensorReader | None) -> None:
    # peft picks the adapter's tensors out of a state dict and names them; frozen weights are not needed for that.
    trained = None if reader is None else {name.removeprefix("model."): reader.read(name) for name in reader.names()}
    model.save_pretrained(folder, state_dict=trained)


def _save_configs(folder: Path, base: Any, dtype: torch.dtype | None) -> None:
    """Writes config.json and generation_config.json; `dtype` is that of the weights written, None for an adapter."""
    before = base.config.use_cache, base.config.dtype
    base.config.use_cache = True
    try:
        if dtype is not None:
            base.config.dtype = dtype
            base.config.architectures = [type(base).__name__.removeprefix("FSDP")]
        base.config.save_pretrained(folder)
        if getattr(base, "generation_config", None) is not None:  # a reward model generates nothing
            base.generation_config.save_pretrained(folder)
    finally:
        base.config.use_cache, base.config.dtype = before


def merge_adapter(model: nn.Module, gate: Gate | None = None) -> nn.Module:
    """Returns the base model with the adapter added to its weights.

    Raises:
        RunFailed: the merged model differs from base and adapter in what it says to the gate's prompts.
    """
    gate = gate or fixed_gate(base_model(model).config.vocab_size)
    expected = observe(model, gate)
    merged: nn.Module = model.eval().merge_and_unload(safe_merge=True)  # type: ignore[operator]
    check_same(expected, observe(merged, gate), dtype=expected.dtype, what="the merged model")
    return merged


def check_written(model: nn.Module, found: Observed, gate: Gate, dtype: torch.dtype) -> float:
    """Rounds the weights of `model` in place to `dtype`, as they were written, and compares; returns the difference.

    The bound of a coarse dtype would hide a small fault that this one shows: rounded alike, logits are alike.

    Raises:
        RunFailed: the folder says something else.
    """
    with torch.no_grad():
        for tensor in [*model.parameters(), *saved_buffers(model).values()]:
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(dtype))
    difference = largest_difference(logits_of(model, gate), found.logits)
    if not difference <= BOUNDS[found.dtype]:
        raise refused(
            f"the written folder: logits differ by {difference:.2g} of the largest from those of the same weights in memory, "
            f"rounded to {dtype}; expected at most {BOUNDS[found.dtype]:g}"
        )
    return difference


def original_dtype(model_path: str | None, fallback: torch.dtype = torch.float32) -> torch.dtype:
    """Returns the type that the checkpoint at `model_path` says it has; `fallback` when it does not say."""
    if not model_path:
        return fallback
    path = Path(model_path).expanduser() / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    name = values.get("dtype") or values.get("torch_dtype")
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return known.get(str(name), fallback)


def set_stop_tokens(model: nn.Module, stop_ids: list[int], pad_id: int | None) -> None:
    """Makes generation end at `stop_ids`, in the exported folder too."""
    base = base_model(model)
    if stop_ids:
        base.generation_config.eos_token_id = stop_ids if len(stop_ids) > 1 else stop_ids[0]
    base.generation_config.pad_token_id = pad_id


def read_chat_settings(folder: Path) -> DataSection:
    """Returns the system prompt and template arguments stored with an exported model, in an otherwise default section."""
    path = folder / CHAT_SETTINGS_NAME
    if not path.is_file():
        return DataSection()
    return DataSection(**json.loads(path.read_text(encoding="utf-8")))


def convert(
    source: Path, target: Path, *, merge: bool, dtype_name: str | None, trained: Trained | None = None
) -> Exported:
    """Writes the exported model `source` to `target` in another form.

    Args:
        source: an exported folder: a whole model or an adapter.
        target: must not exist.
        merge: adapter and base as one model.
        dtype_name: of the weights written; None: that of the base.
        trained: the run's own model, which what is written must equal; None: `source` as it is.

    Raises:
        ConfigError: a whole model cannot be merged, an adapter has no other dtype, or files are missing.
        RunFailed: what was written, read back by transformers, differs; nothing is left of it.
    """
    is_adapter = (source / "adapter_config.json").is_file()
    if merge and not is_adapter:
        raise ConfigError(f"{source}: --merge: is a whole model already")
    if dtype_name and is_adapter and not merge:
        raise ConfigError(f"{source}: --dtype {dtype_name}: an adapter keeps its dtype; --merge writes a whole model")
    model, tokenizer = load_exported(source, device=torch.device("cpu"))
    check_vocabulary(base_model(model), tokenizer)
    stored = next(base_model(model).parameters()).dtype
    dtype = getattr(torch, dtype_name) if dtype_name else stored
    # Merged and compared in float32: what is left of a difference then is an error, or the rounding of what is written.
    model.float()
    checked = held_against(trained) if trained else held_against(Trained(model, tokenizer, own_gate(model, tokenizer, source)))
    card = source / "README.md"
    with atomic.temporary_folder(target) as temporary:
        exported = export_model(
            temporary / "model",
            model,
            tokenizer,
            read_chat_settings(source),
            reader=None,
            merge=merge,
            dtype=dtype,
            card=card.read_text(encoding="utf-8") if card.is_file() else "",
            checked=checked,
        )
        if not atomic.publish_folder(temporary / "model", target):
            raise ConfigError(f"{target}: was written by another command meanwhile; --to FOLDER names another one")
    return dataclasses.replace(exported, folder=target)


def own_gate(model: nn.Module, tokenizer: Any, folder: Path) -> Gate:
    """Returns the gate of fixed token ids for a folder without a run."""
    stop = stop_ids(tokenizer, read_chat_settings(folder))
    vocab_size = base_model(model).get_input_embeddings().weight.shape[0]
    return fixed_gate(vocab_size, stop_ids=stop, pad_id=tokenizer.pad_token_id)
