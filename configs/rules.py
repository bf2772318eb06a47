"""All rules that need more than one section, or facts from outside the configuration."""

from __future__ import annotations

import dataclasses
import glob
import os
from pathlib import Path

from configs.durations import parse_duration
from configs.engine_rules import engine_problems
from configs.facts import Facts
from configs.frontdoor import preset_names
from configs.objective_rules import objective_problems
from configs.runfolder import runs_dir
from configs.schema import RunConfig
from configs.schema.adapter import AdapterSection
from configs.schema.data import DataSection
from configs.values import nearest, show
from configs.weights import weights_problem


def check(config: RunConfig, facts: Facts, *, trains: bool = False) -> list[str]:
    """Returns every broken rule, one sentence each: what was given, what was expected, what to do.

    Args:
        config: resolved.
        facts: of the model and of this machine.
        trains: also what only a run needs: its files, weights, folders that can be written.
    """
    found = [
        *_model_rules(config, facts),
        *_tokenizer_rules(config),
        *_data_rules(config),
        *_length_rules(config),
        *_training_rules(config),
        *objective_problems(config, facts),
        *engine_problems(config, facts),
    ]
    return [*found, *_run_rules(config)] if trains else found


def _model_rules(config: RunConfig, facts: Facts) -> list[str]:
    model = config.model
    found = []
    if not model.path and not model.random_weights:
        what = "a preset's shape without weights" if model.arch else "missing"
        found.append(f"model.path: {what}; give a Hugging Face model folder: model.path=FOLDER")
    if model.path:
        found += _folder_rules(model.path, facts)
    if model.random_weights and "model_type" not in model.arch:
        found.append("model.arch: model_type is missing; random weights need the values of a config.json")
    if facts.max_positions and config.data.sequence_length > facts.max_positions:
        found.append(
            f"data.sequence_length={config.data.sequence_length}: the model has {facts.max_positions} positions; "
            f"data.sequence_length={facts.max_positions} is the most"
        )
    return found


def _folder_rules(path: str, facts: Facts) -> list[str]:
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file():
        if folder.is_dir():
            return [f"model.path={path}: no config.json there; expected a Hugging Face model folder"]
        close = nearest(path, preset_names("model"))
        hint = f"did you mean {close}?" if close else "expected a Hugging Face model folder"
        return [f"model.path={path}: no such folder, and no preset of that name; {hint}"]
    if (folder / "adapter_config.json").is_file():
        return [f"model.path={path}: holds an adapter; merge it with its base first: aisc export RUN --merge"]
    if not facts.model:
        return [f"model.path={path}: its config.json cannot be read; copy it again"]
    if facts.model.get("auto_map"):
        return [f"model.path={path}: needs code from its folder (auto_map), which is never run"]
    return []


def _tokenizer_rules(config: RunConfig) -> list[str]:
    model, template = config.model, config.data.chat_template
    found = []
    if not model.tokenizer and not model.path and model.random_weights:
        found.append("model.tokenizer: missing; give the folder of a tokenizer, as model.path is not set")
    if model.tokenizer and not Path(model.tokenizer).expanduser().is_dir():
        found.append(f"model.tokenizer={model.tokenizer}: no such folder")
    if template and not Path(template).expanduser().is_file():
        found.append(f"data.chat_template={template}: no such file; give a UTF-8 Jinja file")
    return found


def _data_rules(config: RunConfig) -> list[str]:
    data = config.data
    found = []
    if not data.train and not data.sources:
        found.append("data.train: missing; give the training file: data=FILE")
    if data.validation.endswith("%"):
        try:
            share = float(data.validation[:-1])
        except ValueError:
            share = -1
        if not 0 < share < 100:
            found.append(f"data.validation={data.validation}: expected a share such as 5%, a path, or none")
    elif data.validation.strip().lower() == "none" and config.evaluation.patience:
        found.append(f"evaluation.patience={config.evaluation.patience}: data.validation=none leaves nothing to evaluate")
    return found


def _path_rules(data: DataSection) -> list[str]:
    paths = {"data.train": data.train} if data.train else {}
    paths |= {f"data.sources.{name}.path": source.path for name, source in data.sources.items()}
    if not data.validation.endswith("%") and data.validation.strip().lower() != "none":
        paths["data.validation"] = data.validation
    return [line for key, path in paths.items() for line in _path_problems(key, path, is_online=data.online)]


def _path_problems(key: str, path: str, *, is_online: bool) -> list[str]:
    if path.startswith("hub:"):
        return [] if is_online else [f"{key}={path}: fetching from the hub is off; data.online=true allows it"]
    expanded = str(Path(path).expanduser())
    if not path or os.path.exists(expanded) or next(glob.iglob(expanded, recursive=True), None):
        return []
    return [f"{key}={path}: no {'file matches' if glob.has_magic(path) else 'such file or folder'}"]


def _training_rules(config: RunConfig) -> list[str]:
    found = []
    training, adapter = config.training, config.adapter
    micro = training.micro_batch_size
    if isinstance(micro, int) and micro > training.global_batch_size:
        found.append(
            f"training.micro_batch_size={micro}: more than training.global_batch_size={training.global_batch_size}; "
            "expected at most that"
        )
    if adapter.name == "none":
        # Asked for and not honoured is an error: somebody who sets a rank expects an adapter.
        plain = AdapterSection()
        changed = [f.name for f in dataclasses.fields(adapter) if getattr(adapter, f.name) != getattr(plain, f.name)]
        found += [
            f"adapter.{name}={show(getattr(adapter, name))}: full fine-tuning has no adapter; adapter=lora uses it"
            for name in changed
        ]
    return found


def _run_rules(config: RunConfig) -> list[str]:
    """What only a run needs: files to read, whole weights, folders to write into."""
    found = _path_rules(config.data)
    path = Path(config.model.path).expanduser() if config.model.path else None
    if path and (path / "config.json").is_file() and (problem := weights_problem(path)):
        found.append(f"model.path={config.model.path}: {problem}")
    if config.run.name and "/" in config.run.name:
        found.append(f"run.name={config.run.name}: expected a name without /; run.dir=FOLDER says where runs go")
    stores = Path(config.data.store or os.environ.get("AISC_STORES") or "stores").expanduser()
    for key, folder in (("run.dir", runs_dir(config.run.dir)), ("data.store", stores)):
        above = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        if not above.is_dir():
            found.append(f"{key}={folder}: {above} is not a folder")
        elif not os.access(above, os.W_OK | os.X_OK):
            found.append(f"{key}={folder}: {above} cannot be written to; give another folder: {key}=FOLDER")
    return found


def _length_rules(config: RunConfig) -> list[str]:
    units = {
        "training.duration": ("steps", "epochs", "tokens"),
        "lr_scheduler.warmup": ("steps", "percent"),
        "lr_scheduler.decay": ("steps", "percent"),
        "checkpoint.every": ("steps", "percent"),
        "evaluation.every": ("steps", "percent"),
    }
    words = {"training.duration": "auto", "checkpoint.every": "end", "evaluation.every": "end"}
    found = []
    for key, allowed in units.items():
        section, name = key.split(".")
        text = getattr(getattr(config, section), name)
        if text == words.get(key):
            continue
        try:
            duration = parse_duration(text)
        except ValueError as error:
            found.append(f"{key}={text}: {str(error).split(': ', 1)[1]}")
            continue
        if duration.unit not in allowed:
            found.append(f"{key}={text}: expected {' or '.join(allowed)}, not {duration.unit}")
        elif duration.value <= 0 and key != "lr_scheduler.warmup":
            found.append(f"{key}={text}: expected more than 0")
    return found
