"""A LLaMA-Factory or axolotl YAML in our keys. What has no counterpart is listed, never silently left out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cli import translate_alignment
from cli.translate_data import DataSets, sources_of

Values = Mapping[str, Any]


class NotCarried(ValueError):
    """The key has a counterpart, but not for this value; the message says what to do."""


@dataclass(slots=True)
class Translation:
    """`values` by our key; `left` what could not be carried over, with the reason; `notes` what to check."""

    values: dict[str, Any] = field(default_factory=dict)
    left: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a key's value goes; `convert` changes it, or raises NotCarried."""

    key: str
    convert: Callable[[Any], Any] = lambda value: value


def one_of(**names: str) -> Callable[[Any], str]:
    """Returns a conversion by table; the words of another tool on the left."""

    def convert(value: Any) -> str:
        if str(value) not in names:
            raise NotCarried(f"{value}: we have {', '.join(sorted(set(names.values())))}")
        return names[str(value)]

    return convert


def expect(wanted: Any, reason: str) -> Callable[[Any], Any]:
    """Returns a conversion that takes one value only: what we always do."""

    def convert(value: Any) -> Any:
        if value != wanted:
            raise NotCarried(reason)
        return None

    return convert


def share(value: Any) -> str:
    """Returns a share below 1 as percent, a number of rows is not carried."""
    if float(value) == 0:
        return "none"
    if float(value) >= 1:
        raise NotCarried("a number of rows; data.validation takes a share such as 5%, or a file")
    return f"{100 * float(value):g}%"


def target_modules(value: Any) -> list[str]:
    """Returns names of linear layers; `all` is all-linear."""
    names = value.split(",") if isinstance(value, str) else list(value)
    return ["all-linear"] if names in (["all"], ["all-linear"]) else [str(name).strip() for name in names]


SCHEDULES = one_of(
    constant="constant",
    constant_with_warmup="constant",
    linear="linear",
    cosine="cosine",
    warmup_stable_decay="wsd",
)
OPTIMIZERS = one_of(adamw="adamw", adamw_torch="adamw", adamw_torch_fused="adamw", adamw_hf="adamw", sgd="sgd")
SHARED = {
    "learning_rate": Rule("optimizer.lr", float),
    "weight_decay": Rule("optimizer.weight_decay", float),
    "adam_beta1": Rule("optimizer.beta1", float),
    "adam_beta2": Rule("optimizer.beta2", float),
    "adam_epsilon": Rule("optimizer.eps", float),
    "max_grad_norm": Rule("training.max_grad_norm", float),
    "warmup_steps": Rule("lr_scheduler.warmup", lambda value: f"{int(value)} steps"),
    "warmup_ratio": Rule("lr_scheduler.warmup", lambda value: f"{100 * float(value):g}%"),
    "seed": Rule("training.seed", int),
    "gradient_checkpointing": Rule("training.gradient_checkpointing", lambda value: "full" if value else "none"),
    "save_steps": Rule("checkpoint.every", lambda value: f"{int(value)} steps"),
    "save_total_limit": Rule("checkpoint.keep", int),
    "eval_steps": Rule("evaluation.every", lambda value: f"{int(value)} steps"),
    "logging_steps": Rule("tracker.every", int),
    "output_dir": Rule("run.dir", str),
    "lora_alpha": Rule("adapter.alpha", float),
    "lora_dropout": Rule("adapter.dropout", float),
}
LLAMA_FACTORY = {
    **SHARED,
    "model_name_or_path": Rule("model.path", str),
    "finetuning_type": Rule("adapter.name", one_of(lora="lora", full="none")),
    "lora_rank": Rule("adapter.rank", int),
    "lora_target": Rule("adapter.target_modules", target_modules),
    "additional_target": Rule("adapter.modules_to_save", target_modules),
    "use_dora": Rule("adapter.dora", bool),
    "use_rslora": Rule("adapter.rslora", bool),
    "cutoff_len": Rule("data.sequence_length", int),
    "packing": Rule("data.packing", bool),
    "neat_packing": Rule("data.packing", bool),
    "val_size": Rule("data.validation", share),
    "eval_dataset": Rule("data.validation", str),
    "default_system": Rule("data.system_prompt", str),
    "enable_thinking": Rule("data.template_args", lambda value: {"enable_thinking": value}),
    "lr_scheduler_type": Rule("lr_scheduler.name", SCHEDULES),
    "optim": Rule("optimizer.name", OPTIMIZERS),
    "do_train": Rule("", expect(True, "training is what `aisc train` does")),
    "train_on_prompt": Rule("", expect(False, "only the assistant's tokens are learned with sft; cpt learns all")),
    "mask_history": Rule("", expect(False, "every assistant turn is learned")),
}
AXOLOTL = {
    **SHARED,
    "base_model": Rule("model.path", str),
    "tokenizer_config": Rule("model.tokenizer", str),
    "adapter": Rule("adapter.name", one_of(lora="lora")),
    "lora_r": Rule("adapter.rank", int),
    "lora_target_modules": Rule("adapter.target_modules", target_modules),
    "lora_target_linear": Rule("", expect(True, "name the layers in adapter.target_modules")),
    "lora_modules_to_save": Rule("adapter.modules_to_save", target_modules),
    "peft_use_dora": Rule("adapter.dora", bool),
    "peft_use_rslora": Rule("adapter.rslora", bool),
    "sequence_len": Rule("data.sequence_length", int),
    "sample_packing": Rule("data.packing", bool),
    "val_set_size": Rule("data.validation", share),
    "chat_template_jinja": Rule("data.chat_template", str),
    "default_system_message": Rule("data.system_prompt", str),
    "lr_scheduler": Rule("lr_scheduler.name", SCHEDULES),
    "optimizer": Rule("optimizer.name", OPTIMIZERS),
    "train_on_inputs": Rule("", expect(False, "only the assistant's tokens are learned with sft; cpt learns all")),
    "pad_to_sequence_len": Rule("", lambda value: None),
}
# Read together, by functions below.
LENGTH_KEYS = ("num_train_epochs", "num_epochs", "max_steps")
BATCH_KEYS = ("per_device_train_batch_size", "micro_batch_size", "gradient_accumulation_steps")
PRECISION_KEYS = ("bf16", "fp16", "fp32")
DATA_KEYS = ("dataset", "dataset_dir", "datasets")
# A key this much like a known one is taken for a slip.
LIKENESS = 0.85


def translate(values: Values, data_sets: DataSets | None = None) -> Translation:
    """Returns the run that the YAML of LLaMA-Factory or axolotl `values` describes, as far as we can do it.

    Args:
        values: of the YAML.
        data_sets: of LLaMA-Factory's dataset_info.json, where there is one.
    """
    is_factory = "base_model" not in values
    table = LLAMA_FACTORY if is_factory else AXOLOTL
    together = (*LENGTH_KEYS, *BATCH_KEYS, *PRECISION_KEYS, *DATA_KEYS, *(translate_alignment.KEYS if is_factory else ()))
    found = Translation()
    for key, value in values.items():
        if key in together or value is None:
            continue
        rule = table.get(key)
        if rule is None:
            near = difflib.get_close_matches(str(key), [*table, *together], 1, LIKENESS)
            found.left.append((key, "no counterpart" + (f"; did you mean {near[0]}?" if near else "")))
            continue
        try:
            converted = rule.convert(value)
        except NotCarried as error:
            found.left.append((key, str(error)))
            continue
        except (TypeError, ValueError):
            found.left.append((key, f"{value}: not understood"))
            continue
        if rule.key and converted is not None:
            found.values[rule.key] = converted
    if is_factory:
        named, left = translate_alignment.objective_of(values)
        found.values.update(named)
        found.left += left
    _length(values, found)
    _batch(values, found)
    _precision(values, found)
    _data(values, found, data_sets)
    return found


def _length(values: Values, found: Translation) -> None:
    steps = values.get("max_steps")
    epochs = values.get("num_train_epochs", values.get("num_epochs"))
    if steps is not None and int(steps) > 0:
        found.values["training.duration"] = f"{int(steps)} steps"
    elif epochs is not None:
        found.values["training.duration"] = f"{float(epochs):g} epochs"


def _batch(values: Values, found: Translation) -> None:
    micro = values.get("per_device_train_batch_size", values.get("micro_batch_size"))
    accumulation = values.get("gradient_accumulation_steps", 1)
    if micro is None:
        return
    found.values["training.micro_batch_size"] = int(micro)
    found.values["training.global_batch_size"] = int(micro) * int(accumulation)
    found.notes.append(
        f"training.global_batch_size={int(micro) * int(accumulation)} is that of one GPU; multiply it by the number of "
        "GPUs that you used. It counts packed rows of sequence_length tokens."
    )


def _precision(values: Values, found: Translation) -> None:
    if values.get("fp16") is True:
        found.left.append(("fp16", "true: we have bf16 and fp32"))
    elif values.get("bf16") in (True, "true", "auto", "full"):
        found.values["training.precision"] = "auto" if values["bf16"] == "auto" else "bf16"


def _data(values: Values, found: Translation, data_sets: DataSets | None) -> None:
    datasets = values.get("datasets")
    if isinstance(datasets, list):
        paths = [entry.get("path") for entry in datasets if isinstance(entry, dict)]
        if len(paths) == 1:
            found.values["data.train"] = paths[0]
        elif paths:
            found.values["data.sources"] = {f"source{i + 1}": {"path": path} for i, path in enumerate(paths)}
        for number, entry in enumerate(datasets):
            extra = [key for key in entry if key not in ("path", "type")] if isinstance(entry, dict) else []
            found.left += [(f"datasets[{number}].{key}", "the format is looked up in the rows") for key in extra]
    if "dataset" in values:
        given = values["dataset"]
        names = [name.strip() for name in (given.split(",") if isinstance(given, str) else map(str, given or ()))]
        sources, left = sources_of(names, data_sets)
        found.left += left
        if sources:
            found.values["data.sources"] = sources
