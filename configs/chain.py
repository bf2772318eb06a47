"""A chain: one YAML with `stages:`, read as one configuration per stage, every problem of every stage at once. No torch.

    model: /models/Qwen3-8B               # shared by all stages, as every section outside `stages`
    stages:
      sft: {objective: sft, data: chats.jsonl}
      dpo: {objective: dpo, data: pairs.jsonl}
      evaluate: {packs: [medical]}        # aisc eval
      release: {}                         # aisc export --release

Order of precedence: shared sections, the stage's own, key=value (every stage), stages.NAME.key=value (one).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.compose import Attempted, compose_given, set_in_section
from configs.errors import ConfigError
from configs.frontdoor import (
    CHAIN,
    EXPERIMENT,
    Assignment,
    Given,
    assign_section,
    experiment_path,
    load_yaml,
    parse_text,
    read_override,
)
from configs.schema import RunConfig
from configs.schema.chain import EvaluateStage, ReleaseStage
from configs.values import nearest

KEY = CHAIN
EVALUATE, RELEASE = "evaluate", "release"
# What comes after all training, in this order.
LAST = (EVALUATE, RELEASE)
# At the start of a line, or anywhere in a file that is one mapping in braces: most files need not be parsed.
_KEY_LINE = re.compile(rf"(?:^|\A\s*\{{.*)([\"']?){KEY}\1\s*:", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Of a later stage's model the chain sets these: it is what the stage before wrote.
PUT_IN = ("path", "preset", "arch", "random_weights")


@dataclass(frozen=True, slots=True)
class Stage:
    """A training stage as read: `attempted` has the first stage's model, whose shape all stages have.

    Attributes:
        own_tokenizer: of a later stage, where it names one; else it takes the former model's.
    """

    name: str
    attempted: Attempted
    own_tokenizer: str | None


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain as read; `problems` of its two last stages and of its frame are listed, those of training in `stages`."""

    stem: str
    stages: list[Stage]
    evaluate: EvaluateStage | None
    release: ReleaseStage | None
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Layer:
    """One YAML: `shared` sections, the values of each stage, the line of each key."""

    path: Path
    shared: dict[str, Any]
    stages: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def stage_lines(self, name: str) -> dict[tuple[str, ...], int]:
        """Returns the lines of a stage's keys, as if the stage were the file."""
        return {path[2:]: line for path, line in self.lines.items() if path[:2] == (KEY, name) and len(path) > 2}

    def where(self, *path: str) -> str:
        """Returns `chain.yaml:12: `."""
        return f"{self.path}:{self.lines.get(path, 1)}: "


@dataclass(slots=True)
class Words:
    """A command's words: its files, lowest first, and the overrides for all stages and for one."""

    files: list[Path] = field(default_factory=list)
    shared: list[tuple[str, str]] = field(default_factory=list)
    own: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def is_chain(arguments: Sequence[str]) -> bool:
    """True when a file or experiment that the command names has `stages:` at its top level."""
    try:
        return any(_has_stages(path) for path in _files(arguments))
    except (OSError, UnicodeDecodeError):
        return False  # the reader of a single run says what is wrong with it


def _has_stages(path: Path) -> bool:
    if not path.is_file() or not _KEY_LINE.search(path.read_text(encoding="utf-8-sig")):
        return False
    loaded = load_yaml(path)
    return not isinstance(loaded, str) and KEY in loaded[0]


def _files(arguments: Sequence[str]) -> Iterator[Path]:
    """Yields the files of a command, those that others build on first."""
    named = [experiment_path(word.partition("=")[2]) for word in arguments if word.partition("=")[0] == EXPERIMENT]
    given = [Path(word) for word in arguments if "=" not in word and word.endswith((".yaml", ".yml"))]
    for path in [*named, *given]:
        if path in given and path.is_file() and (base := _base_of(path)) is not None:
            yield experiment_path(base)
        yield path


def _base_of(path: Path) -> str | None:
    """Returns the experiment that a YAML builds on."""
    found = re.search(rf"^{EXPERIMENT}\s*:\s*(\S+)", path.read_text(encoding="utf-8-sig"), re.MULTILINE)
    return found[1].strip("\"'") if found else None


def read_chain(arguments: Sequence[str]) -> Chain:
    """Returns the chain of `CHAIN.yaml [key=value ...]` as far as it can be read, with every problem.

    Raises:
        ConfigError: a file cannot be read, or its stages are no chain, so that most of it is unknown.
    """
    words = read_words(arguments)
    layers = [read_layer(path) for path in words.files]
    names = list(dict.fromkeys(name for layer in layers for name in layer.stages))
    problems = [*words.problems, *_order_problems(layers[-1], names)]
    training = [name for name in names if name not in LAST]
    if not training:
        problems.append(f"{layers[-1].where(KEY)}{KEY}: no stage that trains; expected NAME: {{objective: ..., data: ...}}")
    if problems:
        raise ConfigError(problems)
    problems += _unknown_stages(words, names)
    stages: list[Stage] = []
    for name in training:
        stages.append(_stage(name, layers, words, first=stages[0] if stages else None))
    evaluate = _last_stage(EvaluateStage, EVALUATE, layers, words, problems) if EVALUATE in names else None
    release = _last_stage(ReleaseStage, RELEASE, layers, words, problems) if RELEASE in names else None
    if evaluate is not None:
        problems += _missing_files(evaluate)
        base = stages[-1].attempted.config.evaluation.base or stages[0].attempted.config.model.path
        evaluate.base = evaluate.base or (str(Path(base).expanduser().absolute()) if base else None)
    return Chain(stages[0].attempted.stem, stages, evaluate, release, problems)


def read_words(arguments: Sequence[str]) -> Words:
    """Returns the words of a command, sorted."""
    words = Words(files=list(dict.fromkeys(_files(arguments))))
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or key == EXPERIMENT:
            if not equals and not argument.endswith((".yaml", ".yml")):
                words.problems.append(f"{argument}: expected CHAIN.yaml or key=value")
        elif key == KEY:
            words.problems.append(f"{argument}: is a section; expected {KEY}.NAME.KEY=VALUE")
        elif key.startswith(f"{KEY}."):
            _, name, *rest = key.split(".")
            words.own.setdefault(name, []).append((".".join(rest), text))
        else:
            words.shared.append((key, text))
    return words


def read_layer(path: Path) -> Layer:
    """Returns a YAML's sections.

    Raises:
        ConfigError: it cannot be read, or its stages are no mapping of sections.
    """
    loaded = load_yaml(path)
    if isinstance(loaded, str):
        raise ConfigError(loaded)
    values, lines = loaded
    values.pop(EXPERIMENT, None)
    stages = values.pop(KEY, {})
    where = f"{path}:{lines.get((KEY,), 1)}: "
    if not isinstance(stages, dict):
        raise ConfigError(f"{where}{KEY}: expected a mapping NAME: {{section: ...}}, such as sft: {{objective: sft, data: chats.jsonl}}")
    problems = []
    for name, value in stages.items():
        where = f"{path}:{lines.get((KEY, str(name)), 1)}: "
        if not _NAME.fullmatch(str(name)):
            problems.append(f"{where}{KEY}.{name}: expected a name of letters, digits and _, a letter first")
        if value is not None and not isinstance(value, dict):
            problems.append(f"{where}{KEY}.{name}: expected sections, such as {{objective: sft, data: chats.jsonl}}")
    if problems:
        raise ConfigError(problems)
    return Layer(path, values, {str(name): value or {} for name, value in stages.items()}, lines)


def _order_problems(layer: Layer, names: list[str]) -> list[str]:
    """Nothing trains after `evaluate` or `release`, and what is released has been evaluated."""
    last = [name for name in names if name in LAST]
    expected = [*(name for name in names if name not in LAST), *(name for name in LAST if name in last)]
    if names == expected:
        return []
    return [f"{layer.where(KEY)}{KEY}: {', '.join(names)}; expected this order: {', '.join(expected)}"]


def _unknown_stages(words: Words, names: list[str]) -> list[str]:
    found = []
    for name in words.own:
        if name not in names:
            close = nearest(name, names)
            found.append(f"{KEY}.{name}: no such stage; " + (f"did you mean {KEY}.{close}?" if close else f"there are: {', '.join(names)}"))
    return found


def _stage(name: str, layers: list[Layer], words: Words, first: Stage | None) -> Stage:
    """Returns a training stage; one after the first has the model of the first, for the checks."""
    given = Given(layers[-1].path.stem, {}, [], [])
    own: list[Assignment] = []
    for layer in layers:
        given.next_place()
        for section, value in layer.shared.items():
            assign_section(given, section, value, layer.path, layer.lines)
    for layer in layers:
        given.next_place()
        lines = layer.stage_lines(name)
        for section, value in layer.stages.get(name, {}).items():
            assign_section(given, str(section), value, layer.path, lines)
        own += given.assignments[given.floor :]
    given.next_place()
    for key, text in words.shared:
        read_override(given, key, text)
    given.next_place()
    for key, text in words.own.get(name, []):
        read_override(given, key, text) if key else given.problems.append(f"expected {KEY}.{name}.KEY=VALUE")
    own += given.assignments[given.floor :]
    given.problems += _not_a_stage_s(own, is_first=first is None)
    attempted = compose_given(given)
    tokenizer = None
    if first is not None:
        model, base = attempted.config.model, first.attempted.config.model
        tokenizer = model.tokenizer if any(one.path == ("model", "tokenizer") for one in own) else None
        model.path, model.arch, model.random_weights = base.path, base.arch, base.random_weights
        model.tokenizer = tokenizer or base.tokenizer
    return Stage(name, attempted, tokenizer)


def _not_a_stage_s(own: list[Assignment], *, is_first: bool) -> list[str]:
    """Returns the problems of keys that one stage alone cannot set."""
    found = []
    for one in own:
        dotted = ".".join(one.path)
        if one.path[0] == "run":
            found.append(f"{one.where}{dotted}: is the chain's, not a stage's; expected it outside {KEY}")
        elif not is_first and one.path[0] == "model" and (len(one.path) == 1 or one.path[1] in PUT_IN):
            found.append(f"{one.where}{dotted}: a later stage begins from what the stage before wrote; leave it out")
    return found


def _last_stage(kind: Callable[[], Any], name: str, layers: list[Layer], words: Words, problems: list[str]) -> Any:
    """Returns `evaluate` or `release` as given; what is wrong is added to `problems`."""
    section = kind()
    given = [
        Assignment((KEY, name, str(key)), value, layer.where(KEY, name, str(key)))
        for layer in layers
        for key, value in layer.stages.get(name, {}).items()
    ]
    for key, text in words.own.get(name, []):
        first, _, inner = key.partition(".")
        value = parse_text((first,), text)
        if inner and isinstance(before := getattr(section, first, None), dict):
            value = {**before, **{k: v for one in given if one.path[-1] == first for k, v in dict(one.value).items()}, inner: value}
        given.append(Assignment((KEY, name, first), value, ""))
    for assignment in given:
        if problem := set_in_section(section, assignment):
            problems.append(problem)
    problems += [f"{KEY}.{name}.{line}" for line in section.problems()]
    return section


def _missing_files(stage: EvaluateStage) -> list[str]:
    paths = [(f"tasks.{name}", path) for name, path in stage.tasks.items()]
    paths += [("forgetting", path) for path in stage.forgetting]
    return [f"{KEY}.{EVALUATE}.{key}={path}: no such file" for key, path in paths if not Path(path).expanduser().exists()]


def join_problems(found: dict[str, list[str]]) -> list[str]:
    """Returns the problems of all stages, each once; one that not every stage has names those that have it."""
    stages: dict[str, list[str]] = {}
    for name, lines in found.items():
        for line in dict.fromkeys(lines):
            stages.setdefault(line, []).append(name)
    return [line if len(names) == len(found) else f"{line}   (stage {', '.join(names)})" for line, names in stages.items()]


def with_model(config: RunConfig, former: Path, tokenizer: str | None) -> RunConfig:
    """Returns a copy that begins from `former`, a model folder that need not be there yet."""
    changed = copy.deepcopy(config)
    changed.model.path, changed.model.tokenizer = str(former), tokenizer
    changed.model.arch, changed.model.random_weights = {}, False
    return changed
