"""`aisc init`: looks at a model folder and a data file, writes a short commented YAML; or moves in from another tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from cli.screens import console, split_values
from cli.translate import Translation, translate
from cli.translate_data import DataSets
from configs import compose
from configs.atomic import write_file
from configs.errors import ConfigError, UserError

# From this size on, adapters are the default: full fine-tuning takes about 16 bytes per parameter.
LORA_FROM_BYTES = 4 * 2**30
SHORTEST, LONGEST = 256, 8192
# What an objective other than sft and cpt is for, where a file's rows ask for one.
OBJECTIVES = {
    "dpo": "the better of two answers; orpo, simpo and reward learn from the same rows",
    "kto": "answers marked good or bad",
}
GROUP_NAMES = ("patient_id", "patient", "conversation", "conversation_id", "user_id", "document_id", "group", "case_id")


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    options, words = split_values(arguments, values=("--model", "--data", "--from", "--to"))
    if words:
        raise UserError(f"{words[0]}: expected --model FOLDER --data FILE, or --from FILE")
    target = Path(options.get("--to", "run.yaml"))
    if target.exists():
        raise UserError(f"{target}: exists already; --to FILE writes another one")
    if "--from" in options:
        text, found = from_other(Path(options["--from"]))
    elif "--model" in options and "--data" in options:
        text, found = from_looking(options["--model"], options["--data"], target), Translation()
    else:
        raise UserError("aisc init: expected --model FOLDER --data FILE, or --from FILE")
    write_file(target, text)
    screen = console()
    screen.print(f"{target}\n", soft_wrap=True, markup=False)
    screen.print(text, soft_wrap=True, markup=False)
    for note in found.notes:
        screen.print(f"check   {note}", soft_wrap=True, markup=False)
    for key, reason in found.left:
        screen.print(f"left    {key}: {reason}", soft_wrap=True, markup=False)
    problems = problems_of(target)
    for problem in problems:
        screen.print(f"to do   {problem}", soft_wrap=True, markup=False)
    screen.print(f"\nnext    aisc inspect {target}          aisc train {target} --dry-run", soft_wrap=True, markup=False)
    return 0


def problems_of(target: Path) -> list[str]:
    """Returns what our own checks say of the file just written."""
    from cli.configured import load_checked

    try:
        load_checked([str(target)])
    except ConfigError as error:
        return str(error).splitlines()
    return []


def from_looking(model: str, data: str, target: Path) -> str:
    """Returns the YAML for a model folder and a data file, with what was seen in them as comments.

    Raises:
        UserError: either cannot be read.
    """
    folder = Path(model).expanduser()
    values = model_values(folder)
    seen = look_at_data(folder, data)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    adapter = "{name: lora, rank: 16}" if weights >= LORA_FROM_BYTES else "none"
    length = min(sequence_length(seen.longest), int(values.get("max_position_embeddings") or LONGEST))
    group = next((name for name in GROUP_NAMES if name in seen.columns), None)
    lines = [
        (f"model: {quoted(model)}", f"{values.get('model_type', '?')}, {weights / 2**30:.1f} GiB of weights"),
        (f"adapter: {adapter}", "lora: adapters of rank 16; none: every weight is trained"),
        (f"objective: {seen.objective}", OBJECTIVES.get(seen.objective, "sft learns the assistant's turns, cpt every token")),
        ("data:", ""),
        (f"  train: {quoted(data)}", f"{seen.format}, about {seen.rows:,} rows"),
        ("  validation: 5%", "held out, evaluated before, during and after"),
        (f"  group_by: {group or 'null'}", "a column whose equal values stay on one side of the split"),
        (f"  sequence_length: {length}", f"longest of {seen.sampled:,} rows looked at: {seen.longest:,} tokens"),
        ("  overlength: error", "or truncate, drop, split: counted"),
        ("training:", ""),
        (f"  duration: {compose.DEFAULT_DURATION[seen.objective]}", "or 500 steps, 2e9 tokens"),
        ("  global_batch_size: 32", "packed rows per optimizer step, over all GPUs"),
        ("  seed: 1", ""),
        ("optimizer: {lr: auto}", "1e-5 for every weight, 1e-4 for lora"),
    ]
    head = f"# {target.name}        run it:  aisc train {target}        every key:  aisc train --help all"
    return "\n".join([head, *(f"{line:<43} # {note}" if note else line for line, note in lines)]) + "\n"


def sequence_length(longest: int) -> int:
    """Returns the power of two that holds the longest row, with a little room, between 256 and 8,192 tokens."""
    length = SHORTEST
    while length < min(LONGEST, 1.1 * longest):
        length *= 2
    return length


def model_values(folder: Path) -> dict[str, Any]:
    """Returns config.json of a model folder.

    Raises:
        UserError: there is none.
    """
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"--model {folder}: no config.json there; expected a Hugging Face model folder") from error
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'}: not JSON ({error})") from error


def look_at_data(folder: Path, data: str) -> Any:
    """Returns what a sample of the rows shows: format, columns, lengths in tokens."""
    from configs.schema import DataSection
    from data_pipelines.estimate import look

    return look(DataSection(train=data), str(folder))


def quoted(text: str) -> str:
    """Returns a scalar as YAML writes it."""
    return yaml.safe_dump(text, allow_unicode=True, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def from_other(path: Path) -> tuple[str, Translation]:
    """Returns our YAML for a LLaMA-Factory or axolotl one, and what was not carried over.

    Raises:
        UserError: the file cannot be read, or is neither.
    """
    from omegaconf._utils import get_yaml_loader

    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=get_yaml_loader())
    except FileNotFoundError as error:
        raise UserError(f"--from {path}: no such file") from error
    except yaml.YAMLError as error:
        raise UserError(f"--from {path}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict) or not {"model_name_or_path", "base_model"} & values.keys():
        raise UserError(f"--from {path}: neither LLaMA-Factory's (model_name_or_path) nor axolotl's (base_model)")
    found = translate(values, DataSets.near(values, path))
    sections: dict[str, dict[str, Any]] = {}
    for key, value in found.values.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    text = yaml.safe_dump(sections, allow_unicode=True, sort_keys=False, default_flow_style=None, width=120)
    return f"# from {path.name}\n{text}", found
