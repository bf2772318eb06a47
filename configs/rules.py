"""All rules that need more than one section, or facts from outside the configuration."""

from __future__ import annotations

from pathlib import Path

from configs.durations import parse_duration
from configs.facts import Facts
from configs.schema import RunConfig


def check(config: RunConfig, facts: Facts) -> list[str]:
    """Returns every broken rule, one sentence each: what was given, what was expected, what to do."""
    return [*_model_rules(config, facts), *_data_rules(config), *_length_rules(config), *_engine_rules(config, facts)]


def _model_rules(config: RunConfig, facts: Facts) -> list[str]:
    model = config.model
    found = []
    if not model.path and not model.random_weights:
        what = "a preset's shape without weights" if model.arch else "missing"
        found.append(f"model.path: {what}; give a Hugging Face model folder: model.path=FOLDER")
    if model.path and not (Path(model.path).expanduser() / "config.json").is_file():
        folder = Path(model.path).expanduser()
        what = "no config.json there" if folder.is_dir() else "no such folder, and no preset of that name"
        found.append(f"model.path={model.path}: {what}; expected a Hugging Face model folder")
    if model.random_weights and "model_type" not in model.arch:
        found.append("model.arch: model_type is missing; random weights need the values of a config.json")
    if facts.max_positions and config.data.sequence_length > facts.max_positions:
        found.append(
            f"data.sequence_length={config.data.sequence_length}: the model has {facts.max_positions} positions; "
            f"data.sequence_length={facts.max_positions} is the most"
        )
    if facts.model.get("auto_map"):
        found.append(f"model.path={model.path}: needs code from its folder (auto_map), which is never run")
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


def _engine_rules(config: RunConfig, facts: Facts) -> list[str]:
    found = []
    processes = config.engine.processes
    if isinstance(processes, int) and processes < 1:
        found.append(f"engine.processes={processes}: expected auto, or 1 or more")
    elif isinstance(processes, int) and facts.num_gpus and processes > facts.num_gpus:
        found.append(f"engine.processes={processes}: this machine shows {facts.num_gpus} GPUs; expected at most that")
    return found
