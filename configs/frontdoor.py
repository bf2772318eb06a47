"""What the user typed and wrote, as a flat list of assignments: the layer in front of Hydra.

A user's YAML needs no `defaults:` and no `@package`. A section given as text is a preset's name or a path; as a mapping
it sets fields, and `preset:` names one. Hydra's own override grammar refuses non-ASCII text, `~` and `=` inside a value
and takes `model=/path` for a group file, so values never reach it: only names of presets do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from configs.schema import SECTIONS, RunConfig
from configs.values import fields_of, hints_of, mapping_of, nearest, show

PRESET_ROOT = Path(__file__).parent
# Where a section's bare text goes when it is no preset: `model=/models/Qwen3-8B`, `data=chats.jsonl`, `adapter=lora`.
TEXT_FIELD = {
    "model": "path",
    "data": "train",
    "adapter": "name",
    "objective": "name",
    "optimizer": "name",
    "lr_scheduler": "name",
    "engine": "name",
    "run": "name",
    "training": "duration",
    "cluster": "name",
}
EXPERIMENT = "experiment"
# The key that makes a YAML a chain (configs/chain.py).
CHAIN = "stages"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One `path = value` and where it was given, such as `run.yaml:12: ` or nothing for the command line."""

    path: tuple[str, ...]
    value: Any
    where: str


@dataclass(slots=True)
class Given:
    """Everything the user gave, in order of precedence (later wins).

    `misread` names sections whose preset is unknown; `has_unread_file` means that nothing can be said to be missing.
    `assignments[floor:]` are those of the place that is being read: an experiment, then the user's YAML, then the command line.
    """

    stem: str
    presets: dict[str, str]
    assignments: list[Assignment]
    problems: list[str]
    misread: set[str] = field(default_factory=set)
    has_unread_file: bool = False
    floor: int = 0

    def next_place(self) -> None:
        """Begins the next place: what is named there replaces what was named before."""
        self.floor = len(self.assignments)

    def name_section(self, section: str, preset: str | None = None) -> None:
        """Notes that a section is named as a whole: earlier places' preset, name, and fields that `preset` sets give way."""
        fields = {TEXT_FIELD[section]} if section in TEXT_FIELD else set()
        self.presets.pop(section, None)
        if preset is not None:
            self.presets[section] = preset
            fields |= preset_fields(section, preset)
        kept = [a for a in self.assignments[: self.floor] if a.path[0] != section or not fields.intersection(a.path[1:2])]
        self.assignments[: self.floor] = kept
        self.floor = len(kept)


def preset_fields(group: str, name: str) -> set[str]:
    """Returns the fields that a packaged preset sets."""
    loaded = load_yaml(PRESET_ROOT / group / f"{name}.yaml")
    return set() if isinstance(loaded, str) else {str(key) for key in loaded[0]}


def preset_names(group: str) -> list[str]:
    """Returns the names of the packaged presets of a group."""
    return sorted(path.stem for path in (PRESET_ROOT / group).glob("*.yaml"))


def field_words(section: str) -> tuple[str, ...]:
    """Returns the legal words of the field that a section's bare text sets; empty when it is free."""
    field = fields_of(hints_of(RunConfig)[section])[TEXT_FIELD[section]]
    words: tuple[str, ...] = field.metadata["choices"]
    return words


def read_arguments(arguments: Sequence[str]) -> Given:
    """Returns the assignments of `[RUN.yaml] [key=value ...]`; what cannot be read is in `problems`."""
    given = Given("run", {}, [], [])
    overrides = []
    files = []
    for argument in arguments:
        if "=" in argument:
            overrides.append(argument)
        elif argument.endswith((".yaml", ".yml")):
            files.append(argument)
        elif argument.startswith(("+", "~")):
            given.problems.append(_no_prefix(argument, argument))
        else:
            given.problems.append(f"{argument}: expected RUN.yaml or key=value")
    for extra in files[1:]:
        given.problems.append(f"{extra}: a second RUN.yaml; expected one")
    for override in overrides:
        key, _, value = override.partition("=")
        if key == EXPERIMENT:
            _read_experiment(given, value)
    if files:
        given.stem = Path(files[0]).stem
        _read_yaml(given, Path(files[0]))
    given.next_place()
    for override in overrides:
        key, _, text = override.partition("=")
        if key != EXPERIMENT:
            read_override(given, key, text)
    return given


def experiment_path(name: str) -> Path:
    """Returns the file of a packaged experiment, or `name` itself where that is one."""
    return Path(name) if name.endswith((".yaml", ".yml")) else PRESET_ROOT / EXPERIMENT / f"{name}.yaml"


def _read_experiment(given: Given, name: str) -> None:
    path = experiment_path(name)
    if not path.is_file():
        close = nearest(name, preset_names(EXPERIMENT))
        hint = f"; did you mean {close}?" if close else f"; there are: {', '.join(preset_names(EXPERIMENT))}"
        given.problems.append(f"experiment={name}: no such experiment{hint}")
        given.has_unread_file = True
        return
    given.stem = path.stem
    _read_yaml(given, path)


def read_override(given: Given, key: str, text: str) -> None:
    """Adds what `key=text` of the command line says."""
    if key.startswith(("+", "~")):
        given.problems.append(_no_prefix(f"{key}={text}", key))
        return
    if not key:
        given.problems.append(f"={text}: expected key=value")
        return
    path = tuple(key.split("."))
    _assign(given, path, parse_text(path, text), "")


def _no_prefix(argument: str, key: str) -> str:
    return f"{argument}: `{key[0]}` is not used here; every key exists already: {key.lstrip('+~')}=VALUE"


def parse_text(path: tuple[str, ...], text: str) -> Any:
    """Returns the value of `path=text`: brackets, braces and null are YAML, everything else stays as typed.

    A key of the user's own (model.arch.KEY, data.template_args.KEY) has no type to turn text into: there everything is
    YAML, so that `false` and `64` mean the same as in a file.
    """
    stripped = text.strip()
    if _takes_anything(path):
        try:
            return yaml.load(stripped, Loader=_loader())
        except yaml.YAMLError:
            return text
    if stripped == "null":
        return None
    if len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        return stripped[1:-1]
    if stripped[:1] in "[{" and stripped:
        try:
            return yaml.load(stripped, Loader=_loader())
        except yaml.YAMLError:
            return text
    return text


def _takes_anything(path: tuple[str, ...]) -> bool:
    """Returns whether `path` lies in a mapping whose values have no type."""
    if len(path) < 3 or path[0] not in SECTIONS:
        return False
    hint = mapping_of(hints_of(hints_of(RunConfig)[path[0]]).get(path[1]))
    return get_args(hint)[-1:] == (Any,)


@cache
def _loader() -> Any:
    """Returns OmegaConf's YAML loader, which reads `1e-4` as a number, without YAML 1.1's numbers of base 60.

    Plain YAML turns an unquoted `12:30` into 750 and `24:00:00` into 86400; here they stay text, as on the command line.
    """

    class Loader(get_yaml_loader()):  # type: ignore[misc]
        def construct_yaml_int(self, node: Any) -> Any:
            return node.value if ":" in node.value else super().construct_yaml_int(node)

        def construct_yaml_float(self, node: Any) -> Any:
            return node.value if ":" in node.value else super().construct_yaml_float(node)

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_yaml_float)
    return Loader


def _read_yaml(given: Given, path: Path) -> None:
    loaded = load_yaml(path)
    if isinstance(loaded, str):
        given.problems.append(loaded)
        given.has_unread_file = True
        return
    values, lines = loaded
    if CHAIN in values:
        told = "makes this a chain, which aisc train and aisc launch run as a whole; expected the YAML of one run"
        given.problems.append(f"{path}:{lines[(CHAIN,)]}: {CHAIN}: {told}")
        given.has_unread_file = True
        return
    experiment = values.pop(EXPERIMENT, None)
    if isinstance(experiment, str):
        stem = given.stem
        _read_experiment(given, experiment)
        given.stem = stem
    given.next_place()
    for section, value in values.items():
        assign_section(given, str(section), value, path, lines)


def load_yaml(path: Path) -> tuple[dict[Any, Any], dict[tuple[str, ...], int]] | str:
    """Returns the sections of a YAML file and the line of each key, or the problem."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return f"{path}: no such file"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    except UnicodeDecodeError as error:
        return f"{path}: not UTF-8, byte {error.start + 1}; save the file as UTF-8"
    try:
        values = yaml.load(text, Loader=_loader())
        lines = dict(_key_lines(yaml.compose(text, Loader=_loader())))
        values = OmegaConf.to_container(OmegaConf.create({} if values is None else values), resolve=True)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"{path}{line}: not YAML: {error.problem}"
    except yaml.YAMLError as error:
        return f"{path}: not YAML: {str(error).splitlines()[0]}"
    except OmegaConfBaseException as error:
        return f"{path}: {str(error).splitlines()[0]}"
    if not isinstance(values, dict) or not lines.keys() >= {(str(key),) for key in values}:
        return f"{path}: expected sections (model:, data:, ...) at the top level"
    return values, lines


def _key_lines(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _key_lines(value, inner)


def assign_section(given: Given, section: str, value: Any, file: Path, lines: dict[tuple[str, ...], int]) -> None:
    """Adds what one section of a YAML says; `lines` are those of its keys in `file`."""

    def where(*path: str) -> str:
        return f"{file}:{lines.get(path, 1)}: "

    if isinstance(value, dict) and section in SECTIONS:
        for key, inner in value.items():
            _assign(given, (section, str(key)), inner, where(section, str(key)))
    else:
        _assign(given, (section,), value, where(section))


def _assign(given: Given, path: tuple[str, ...], value: Any, where: str) -> None:
    section = path[0]
    if len(path) == 2 and path[1] == "preset":
        _choose_preset(given, section, show(value), where)
    elif len(path) == 1 and section in TEXT_FIELD and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        if str(value) in preset_names(section):
            _choose_preset(given, section, str(value), where)
        elif (names := preset_names(section)) and (words := field_words(section)) and str(value) not in words:
            close = nearest(str(value), [*words, *names])
            hint = f"; did you mean {close}?" if close else ""
            listed = f"expected {' | '.join(words)}, or a preset: {', '.join(names)}"
            given.problems.append(f"{where}{section}={value}: {listed}{hint}")
            given.misread.add(section)
        else:
            given.name_section(section)
            given.assignments.append(Assignment((section, TEXT_FIELD[section]), value, where))
    elif len(path) == 1 and section in SECTIONS and isinstance(value, dict):
        for key, inner in value.items():
            _assign(given, (section, str(key)), inner, where)
    else:
        given.assignments.append(Assignment(path, value, where))


def _choose_preset(given: Given, section: str, name: str, where: str) -> None:
    names = preset_names(section)
    if name in names:
        given.name_section(section, name)
    elif section in TEXT_FIELD and (not names or name in field_words(section)):
        given.name_section(section)
        given.assignments.append(Assignment((section, TEXT_FIELD[section]), name, where))
    else:
        close = nearest(name, names)
        hint = f"; did you mean {close}?" if close else f"; there are: {', '.join(names) or 'none'}"
        given.problems.append(f"{where}{section}.preset={name}: no such preset{hint}")
        given.misread.add(section)


def known_paths(schema: type, prefix: tuple[str, ...] = ()) -> list[str]:
    """Returns every dotted path of the schema, for suggestions."""
    found = []
    for name, hint in hints_of(schema).items():
        path = (*prefix, name)
        if hasattr(hint, "__dataclass_fields__"):
            found += known_paths(hint, path)
        else:
            found.append(".".join(path))
    return found
