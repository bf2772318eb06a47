"""Help on configuration keys, made from the schema: what a key is, its default, its choices. Needs no heavy library."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from configs.frontdoor import PRESET_ROOT, preset_names
from configs.schema import SECTIONS, RunConfig
from configs.values import fields_of, nearest

WIDTH = 80
# What people change; everything else has a default that they never have to touch.
COMMON = (
    "model.path",
    "adapter.name",
    "adapter.rank",
    "objective.name",
    "data.train",
    "data.validation",
    "data.group_by",
    "data.system_prompt",
    "data.template_args",
    "data.sequence_length",
    "data.overlength",
    "data.max_bad_rows",
    "training.duration",
    "training.global_batch_size",
    "training.micro_batch_size",
    "training.seed",
    "optimizer.lr",
    "evaluation.every",
    "checkpoint.every",
    "engine.processes",
    "run.dir",
)


def keys_help(topics: Sequence[str]) -> str:
    """Returns help on the keys of `topics`: section names, keys, `all`; without topics the common keys."""
    if not topics:
        return _table(_keys(), only=COMMON)
    if "all" in topics:
        return _table(_keys())
    return "\n".join(_topic_help(topic) for topic in topics)


def _topic_help(topic: str) -> str:
    keys = list(_keys())
    names = [name for name, _ in keys]
    section = topic.split(".", maxsplit=1)[0]
    if topic in names:
        return _table(keys, only=[topic])
    if topic in SECTIONS:
        table = _table(keys, only=[name for name in names if name.split(".")[0] == topic])
        presets = preset_names(topic)
        return table + (f"\npresets: {', '.join(presets)}   ({topic}=NAME)\n" if presets else "")
    close = nearest(topic, [*SECTIONS, *names])
    hint = f"did you mean {close}?" if close else f"sections: {', '.join(SECTIONS)}"
    return f"{section}: no such section or key; {hint}\n"


def _keys() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    for section in dataclasses.fields(RunConfig):
        for name, field in fields_of(section.default_factory).items():  # type: ignore[arg-type]
            yield f"{section.name}.{name}", field


def _table(keys: Iterator[tuple[str, dataclasses.Field[Any]]] | list[tuple[str, Any]], only: Sequence[str] = ()) -> str:
    lines = []
    for name, field in keys:
        if only and name not in only:
            continue
        choices = field.metadata["choices"]
        listed = f"  [{' | '.join(choices)}]" if choices else ""
        lines.append(f"  {name} = {spell_default(field)}{listed}")
        lines += [f"      {line}" for line in textwrap.wrap(field.metadata["help"], WIDTH - 6)]
    return "\n".join(lines) + "\n"


def spell_default(field: dataclasses.Field[Any]) -> str:
    """Returns a field's default as it would be written in YAML."""
    factory = field.default_factory
    value: Any = field.default if factory is dataclasses.MISSING else factory()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "{}" if isinstance(value, dict) else str(value)


def experiments() -> list[str]:
    """Returns the names of the packaged experiments."""
    return sorted(path.stem for path in (PRESET_ROOT / "experiment").glob("*.yaml"))
