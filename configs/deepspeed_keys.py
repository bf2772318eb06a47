"""A user's own DeepSpeed settings, `engine.deepspeed`: read, what they decide for us, merged over ours. No torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import EngineSection

AUTO = "auto"
# What the other sections say already. These blocks have to agree with them (configs/deepspeed_rules.py) and then come
# from us: DeepSpeed gets our optimizer, its accumulation stays 1 whatever the window is.
OURS_ONLY = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
)
OFFLOADS = {"offload_optimizer": "engine.offload_optimizer", "offload_param": "engine.offload_parameters"}


@dataclass(frozen=True, slots=True)
class Theirs:
    """What the user gave: the settings, or why they cannot be read.

    Attributes:
        settings: empty when there is a problem.
        problem: one sentence, or None.
        file: where they were written; None for a mapping in the configuration.
        text: of that file, for line numbers.
    """

    settings: dict[str, Any]
    problem: str | None = None
    file: str | None = None
    text: str = ""

    def where(self, *path: str) -> str:
        """Returns how an error names one key of the settings."""
        if self.file is None:
            return ".".join(("engine.deepspeed", *path))
        return f"engine.deepspeed={self.file}:{self._line(path)}: {'.'.join(path)}"

    def _line(self, path: tuple[str, ...]) -> int:
        """Returns the line on which a key stands: the first one of its name behind the one above it."""
        at = 0
        for key in path:
            found = re.compile(rf'"{re.escape(key)}"\s*:').search(self.text, at)
            at = found.end() if found else at
        return self.text.count("\n", 0, at) + 1


class _Twice(ValueError):
    """A key that a JSON object holds twice."""


def read(section: EngineSection) -> Theirs | None:
    """Returns the settings of `engine.deepspeed`, a mapping or a JSON file; None when there are none."""
    given = section.deepspeed
    if given is None:
        return None
    if isinstance(given, dict):
        # YAML has keys that are no text, `{3: ...}`; JSON, which DeepSpeed reads, has none.
        return Theirs(json.loads(json.dumps(given, default=str)))
    name = f"engine.deepspeed={given}"
    try:
        # "" would be this folder.
        text = Path(given or "(nothing)").expanduser().read_text(encoding="utf-8-sig")
        settings = json.loads(text, object_pairs_hook=_once)
    except FileNotFoundError:
        return Theirs({}, f"{name}: no such file; give a JSON file or a mapping of DeepSpeed's settings")
    except OSError as error:
        return Theirs({}, f"{name}: cannot be read ({error.strerror})")
    except UnicodeDecodeError as error:
        return Theirs({}, f"{name}: not UTF-8, byte {error.start + 1}; save the file as UTF-8")
    except json.JSONDecodeError as error:
        found = f"{error.msg[0].lower()}{error.msg[1:]}{'' if error.msg.endswith(' at') else ','} column {error.colno}"
        return Theirs({}, f"{name}:{error.lineno}: not JSON: {found}")
    except _Twice as error:
        return Theirs({}, f'{name}: "{error}" is there twice in one block; keep one')
    except (ValueError, RecursionError):  # a number of thousands of digits, blocks in blocks without end
        return Theirs({}, f"{name}: no JSON that can be read; expected DeepSpeed's settings")
    if not isinstance(settings, dict):
        return Theirs({}, f"{name}: expected one JSON object {{...}}")
    return Theirs(settings, None, given, text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds a JSON object; a key given twice would otherwise hide the first value."""
    built: dict[str, Any] = {}
    for key, value in pairs:
        if key in built:
            raise _Twice(key)
        built[key] = value
    return built


def zero_block(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns `zero_optimization`, empty when it is missing or no mapping."""
    block = settings.get("zero_optimization")
    return block if isinstance(block, dict) else {}


def offload_device(settings: dict[str, Any], key: str) -> Any:
    """Returns the device of `offload_optimizer` or `offload_param`; None when the block does not say."""
    block = zero_block(settings).get(key)
    device = block.get("device") if isinstance(block, dict) else None
    return None if device == AUTO else device


def is_stage(value: Any) -> bool:
    """Returns whether `value` is a ZeRO stage as JSON should have it: 3, not 3.0 or "3"."""
    return type(value) is int and value in (1, 2, 3)


def adopt(section: EngineSection) -> dict[str, str]:
    """Sets what the user's settings decide for `engine`, in place, and returns why, by key.

    `engine.name=auto` becomes the engine of their ZeRO stage; what they offload to the CPU is offloaded.
    """
    theirs = read(section)
    if theirs is None or theirs.problem:
        return {}
    reasons = {}
    stage = zero_block(theirs.settings).get("stage")
    if section.name == AUTO and is_stage(stage):
        section.name = f"zero{stage}"
        reasons["engine.name"] = "the stage in engine.deepspeed"
    for key, path in OFFLOADS.items():
        name = path.removeprefix("engine.")
        if offload_device(theirs.settings, key) == "cpu" and not getattr(section, name):
            setattr(section, name, True)
            reasons[path] = "engine.deepspeed"
    return reasons


def settings_of(section: EngineSection) -> dict[str, Any]:
    """Returns the user's settings of a checked configuration, `{}` when there are none."""
    theirs = read(section)
    return {} if theirs is None else theirs.settings


def merge(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Returns DeepSpeed's settings: ours, with theirs on top.

    `auto` is ours, or DeepSpeed's default where we say nothing, and so is null for a whole block; what only we decide
    (`OURS_ONLY`) stays ours.
    """
    given = {key: value for key, value in theirs.items() if key not in OURS_ONLY}
    if "bfloat16" in given:
        given.setdefault("bf16", given.pop("bfloat16"))
    zero = given.get("zero_optimization")
    if isinstance(zero, dict) and isinstance(ours.get("zero_optimization"), dict):
        # Two spellings of one field: DeepSpeed would see both and take one without a word.
        block = {_twin(key) if _twin(key) in zero else key: value for key, value in ours["zero_optimization"].items()}
        ours = {**ours, "zero_optimization": block}
    return _merged(ours, given)


def _twin(key: str) -> str:
    return key.removeprefix("stage3_") if key.startswith("stage3_") else f"stage3_{key}"


def _merged(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    result = dict(ours)
    for key, value in theirs.items():
        if isinstance(value, dict):
            inner = ours.get(key)
            result[key] = _merged(inner if isinstance(inner, dict) else {}, value)
        elif value != AUTO and not (value is None and isinstance(ours.get(key), dict)):
            result[key] = value
    return result
