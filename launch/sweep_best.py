"""best.yaml: the user's YAML with what the command line added and the best point's values, ready for `aisc train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from configs.errors import ConfigError
from configs.frontdoor import EXPERIMENT, TEXT_FIELD, load_yaml, parse_text, preset_names
from launch.sweep import Outcome, Sweep, SweepInfo


def best_yaml(sweep: Sweep, info: SweepInfo, best: Outcome) -> str:
    """Returns the text of best.yaml: sections in the order of the user's, the point's values last.

    Raises:
        ConfigError: the copy of the user's YAML cannot be read any more.
    """
    values: dict[str, Any] = {}
    if sweep.yaml_path is not None:
        loaded = load_yaml(sweep.yaml_path)
        if isinstance(loaded, str):
            raise ConfigError(loaded)
        values = loaded[0]
    add_words(values, [*info.words, *best.point.words])
    section(values, "run").setdefault("name", info.stem)
    if isinstance(values.get("sweep"), dict):
        values["sweep"].pop("space", None)
    loss = f", eval_loss {best.eval_loss:.4f}" if best.eval_loss is not None else ""
    return f"# Best of {sweep.name}: point {best.point.number}, {best.point}{loss}.\n{OmegaConf.to_yaml(OmegaConf.create(values))}"


def add_words(values: dict[str, Any], words: Sequence[str]) -> None:
    """Sets `key=value` words in a YAML's sections, in place."""
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            continue
        path = tuple(key.split("."))
        if len(path) == 1:
            set_section(values, key, text)
            continue
        inner = section(values, path[0])
        for name in path[1:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = parse_text(path, text)


def set_section(values: dict[str, Any], name: str, text: str) -> None:
    """Sets a whole section given as text (`model=FOLDER`, `adapter=lora`) in what the YAML says of it."""
    value = parse_text((name,), text)
    if name == EXPERIMENT or name not in TEXT_FIELD or isinstance(value, dict):
        values[name] = value
        return
    section(values, name)["preset" if text in preset_names(name) else TEXT_FIELD[name]] = value


def section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a section as a mapping; one that was given as text becomes `{preset: ...}` or its field."""
    value = values.get(name)
    if not isinstance(value, dict):
        before = {} if value is None else {"preset" if str(value) in preset_names(name) else TEXT_FIELD[name]: value}
        values[name] = before
    inner: dict[str, Any] = values[name]
    return inner
