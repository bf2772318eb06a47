"""From arguments to one checked, complete configuration: load, resolve, freeze, name."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from configs.deepspeed_keys import adopt
from configs.engine_choice import (
    Candidate,
    Choice,
    Machine,
    asked_for,
    choose_engine,
    host_problem,
    not_refused,
    setup_of,
)
from configs.errors import ConfigError
from configs.facts import Facts
from configs.frontdoor import Assignment, Given, known_paths, read_arguments
from configs.memory import Model, Setup, model_of
from configs.schema import SECTIONS, RunConfig
from configs.schema.objective import BETA, PREFERENCE, READERS
from configs.values import BadValue, coerce, fields_of, hints_of, mapping_of, nearest, refuse_targets, show

FULL_LR = 1e-5
# What moves a preference moves the whole model: dpo as Zephyr (arXiv 2310.16944) and Tulu 3 (2411.15124), kto (2402.01306)
# and simpo (2405.14734) in the same range, orpo (2403.07691) near sft; reward as Llama 2 (2307.09288) like sft.
PREFERENCE_LR = {"dpo": 5e-7, "kto": 5e-7, "simpo": 5e-7, "orpo": 5e-6}
LORA_FACTOR = 10
NO_GPU = "no GPU"
DEFAULT_DURATION = {"sft": "3 epochs", "cpt": "1 epochs", **dict.fromkeys(PREFERENCE, "1 epochs")}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration as given: typed and complete, `auto` not yet replaced."""

    config: RunConfig
    stem: str
    given: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attempted:
    """A configuration as far as it could be read, with what is wrong; a value that could not be set has its default.

    Attributes:
        problems: one line each.
        doubtful: keys and sections that the user gave in vain: what a rule says of them is no news.
    """

    config: RunConfig
    stem: str
    given: dict[str, Any]
    problems: list[str]
    doubtful: set[str]

    def add(self, found: list[str]) -> None:
        """Adds what rules found, but for what follows from a problem that is listed already."""
        keys = [re.split("[=:]", line, maxsplit=1)[0] for line in found]
        for key, line in zip(keys, found, strict=True):
            parts = key.split(".")
            above = {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
            if not above & self.doubtful:
                self.problems.append(line)
        self.doubtful.update(keys)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration with every `auto` replaced but `training.micro_batch_size`; `reasons` says why, by key.

    `problems` names each `auto` for which nothing would do.
    """

    config: RunConfig
    reasons: dict[str, str]
    problems: list[str] = dataclasses.field(default_factory=list)


def load(arguments: Sequence[str]) -> Loaded:
    """Returns the configuration of `[RUN.yaml] [key=value ...]`.

    Raises:
        ConfigError: with every problem found, one line each.
    """
    attempted = attempt(arguments)
    if attempted.problems:
        raise ConfigError(attempted.problems)
    return Loaded(attempted.config, attempted.stem, attempted.given)


def attempt(arguments: Sequence[str]) -> Attempted:
    """Returns the configuration of `[RUN.yaml] [key=value ...]` as far as it can be read, with every problem.

    Raises:
        ConfigError: a file that was named cannot be read, so that most of the configuration is unknown.
    """
    given = read_arguments(arguments)
    if given.has_unread_file:
        raise ConfigError(given.problems)
    return compose_given(given)


def compose_given(given: Given) -> Attempted:
    """Returns the configuration that the user's assignments make, as far as it can be, with every problem."""
    made = Attempted(RunConfig(), given.stem, {}, list(given.problems), set(given.misread))
    for assignment in [*_preset_assignments(given.presets), *given.assignments]:
        dotted = ".".join(assignment.path)
        problem = _set(made.config, assignment)
        if problem:
            made.problems.extend(problem.split("\n"))
            made.doubtful.update(_meant(assignment.path))
        else:
            made.given[dotted] = assignment.value
    made.config.model.path = _exported_by(made.config.model.path)
    for section in dataclasses.fields(made.config):
        part = getattr(made.config, section.name)
        if hasattr(part, "problems"):
            made.add(part.problems())
    return dataclasses.replace(made, stem=made.config.run.name or given.stem)


def _exported_by(path: str | None) -> str | None:
    """Returns the model that an earlier run's folder stands for; any other path as it is."""
    return str(Path(path) / "model") if path and (Path(path).expanduser() / "attempts").is_dir() else path


def _meant(path: tuple[str, ...]) -> list[str]:
    """Returns what the user may have meant by a key that could not be set: itself, the nearest one, its source."""
    dotted = ".".join(path)
    close = _closest(dotted)
    return [dotted, *([close] if close else []), *([".".join(path[:-1])] if len(path) > 2 else [])]


def _preset_assignments(presets: dict[str, str]) -> list[Assignment]:
    """Returns the values of the chosen presets."""
    values = copy.deepcopy(_preset_values(tuple(presets.items()))) if presets else {}
    return [
        Assignment((str(group), str(key)), value, f"preset {presets[str(group)]}: ")
        for group, section in values.items()
        for key, value in section.items()
    ]


@functools.cache
def _preset_values(presets: tuple[tuple[str, str], ...]) -> dict[Any, Any]:
    """Lets Hydra compose presets, once in a process: 0.07 s, which a sweep would pay for every point."""
    from hydra import compose, initialize_config_module

    with initialize_config_module("configs", version_base="1.3"):
        composed = compose("run", overrides=[f"{group}={name}" for group, name in presets])
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    return values


def _set(config: RunConfig, assignment: Assignment) -> str | None:
    """Sets one value in place; returns the problem, if there is one."""
    path, where = assignment.path, assignment.where
    dotted = ".".join(path)
    target: Any = config
    for depth, name in enumerate(path):
        fields = fields_of(type(target))
        if name not in fields:
            return f"{where}{dotted}: no such key{_suggest(dotted)}"
        hint = hints_of(type(target))[name]
        if depth == len(path) - 1:
            return _set_field(target, fields[name], hint, assignment)
        inner = getattr(target, name)
        if inner is None and mapping_of(hint):  # `engine.deepspeed.KEY=VALUE`
            setattr(target, name, inner := {})
        if dataclasses.is_dataclass(inner):
            target = inner
        elif isinstance(inner, dict):
            return _set_in_mapping(inner, mapping_of(hint), path[depth + 1 :], assignment)
        else:
            return f"{where}{dotted}: no such key; {'.'.join(path[: depth + 1])} is a value, not a section"
    return f"{where}{dotted}: is a section; expected {dotted}.KEY=VALUE"


def _set_field(target: Any, field: dataclasses.Field[Any], hint: Any, assignment: Assignment) -> str | None:
    dotted = ".".join(assignment.path)
    if dataclasses.is_dataclass(hint):
        return f"{assignment.where}{dotted}={show(assignment.value)}: is a section; expected {dotted}.KEY=VALUE"
    element = typing.get_args(hint)[-1] if typing.get_origin(hint) is dict else None
    if element is not None and dataclasses.is_dataclass(element):
        return _set_sections(target, field.name, element, assignment)  # type: ignore[arg-type]
    try:
        setattr(target, field.name, coerce(assignment.value, hint, field.metadata.get("choices", ())))
    except BadValue as error:
        return f"{assignment.where}{dotted}={show(assignment.value)}: {error}"
    return None


def _set_sections(target: Any, name: str, element: type, assignment: Assignment) -> str | None:
    """Sets a mapping of sections by name, such as data.sources; a section given as text is its path."""
    dotted = ".".join(assignment.path)
    if not isinstance(assignment.value, dict):
        return f"{assignment.where}{dotted}={show(assignment.value)}: expected a mapping NAME: {{path: ...}}"
    sections: dict[str, Any] = {}
    setattr(target, name, sections)
    problems = []
    for key, value in assignment.value.items():
        sections[str(key)] = element()
        inner = value if isinstance(value, dict) else {"path": value}
        for field_name, field_value in inner.items():
            path = (*assignment.path, str(key), str(field_name))
            problem = set_in_section(sections[str(key)], Assignment(path, field_value, assignment.where))
            problems += [problem] if problem else []
    return "\n".join(problems) or None


def set_in_section(section: Any, assignment: Assignment) -> str | None:
    """Sets one key of a dataclass in place, the last of the path; returns the problem, if there is one."""
    name = assignment.path[-1]
    fields = fields_of(type(section))
    dotted = ".".join(assignment.path)
    if name not in fields:
        close = nearest(name, fields)
        hint = f"; did you mean {close}?" if close else f"; expected one of {', '.join(fields)}"
        return f"{assignment.where}{dotted}: no such key{hint}"
    return _set_field(section, fields[name], hints_of(type(section))[name], assignment)


def _set_in_mapping(mapping: dict[str, Any], hint: Any, rest: tuple[str, ...], assignment: Assignment) -> str | None:
    element = typing.get_args(hint)[1]
    dotted = ".".join(assignment.path)
    if dataclasses.is_dataclass(element):
        section = mapping.setdefault(rest[0], element())  # type: ignore[operator]
        if len(rest) == 1:
            return set_in_section(section, Assignment((*assignment.path, "path"), assignment.value, assignment.where))
        if len(rest) > 2 and isinstance(inner := getattr(section, rest[1], None), dict):
            return _set_in_mapping(inner, hints_of(element)[rest[1]], rest[2:], assignment)  # type: ignore[arg-type]
        if len(rest) > 2:
            return f"{assignment.where}{dotted}: no such key; expected data.sources.NAME.KEY=VALUE"
        return set_in_section(section, assignment)
    try:
        inner = mapping
        for name in rest[:-1]:
            inner = inner.setdefault(name, {})
        refuse_targets(dict.fromkeys(rest, assignment.value))
        inner[rest[-1]] = assignment.value if element is Any else coerce(assignment.value, element)
    except BadValue as error:
        return f"{assignment.where}{dotted}={show(assignment.value)}: {error}"
    return None


def _suggest(dotted: str) -> str:
    close = _closest(dotted)
    return f"; did you mean {close}?" if close else "; all keys: aisc train --help all"


def _closest(dotted: str) -> str | None:
    """Returns the key or section that looks most like `dotted`, which may be the last part of a key alone."""
    paths = known_paths(RunConfig)
    if "." not in dotted and (section := nearest(dotted, SECTIONS)):
        return section
    if close := nearest(dotted, paths):
        return close
    close = nearest(dotted, {path.split(".")[-1]: path for path in paths})
    return next((path for path in paths if path.split(".")[-1] == close), None)


def resolve(config: RunConfig, facts: Facts) -> Resolved:
    """Returns a copy with every `auto` replaced from `facts`, but the micro-batch, which the rehearsal finds."""
    resolved = copy.deepcopy(config)
    reasons: dict[str, str] = {}

    def take(section: Any, key: str, value: Any, reason: str) -> None:
        name = key.rsplit(".", maxsplit=1)[-1]
        if getattr(section, name) == "auto":
            setattr(section, name, value)
            reasons[key] = reason

    lora = config.adapter.name == "lora"
    objective = config.objective.name
    how = "lora" if lora else "full fine-tuning"
    take(resolved.optimizer, "optimizer.lr", default_lr(objective, lora=lora), _reason(objective, how))
    duration = DEFAULT_DURATION[objective]
    take(resolved.training, "training.duration", duration, f"default for {objective}")
    if objective in BETA:
        take(resolved.objective, "objective.beta", BETA[objective], f"default for {objective}")
    gpu = facts.num_gpus > 0
    take(resolved.training, "training.precision", "bf16" if gpu else "fp32", "a GPU" if gpu else "no GPU")
    reasons |= adopt(resolved.engine)
    processes = facts.world_size or max(1, facts.num_gpus)
    take(resolved.engine, "engine.processes", processes, "one per visible GPU" if gpu else "no GPU")
    take(resolved.engine, "engine.backend", "nccl" if gpu else "gloo", "a GPU" if gpu else "no GPU")
    problems = []
    if resolved.engine.name == "auto":
        choice = _choose_engine(resolved, facts)
        take(resolved.engine, "engine.name", choice.candidate.name, choice.reason if gpu else NO_GPU)
        resolved.engine.offload_optimizer |= choice.candidate.offload_optimizer
        resolved.engine.offload_parameters |= choice.candidate.offload_parameters
        problems += [choice.problem] if choice.problem else []
    elif resolved.engine.offload_optimizer or resolved.engine.offload_parameters:
        problem = host_problem(*_held(resolved, facts), Candidate.of(resolved.engine))
        problems += [problem] if problem else []
    return Resolved(resolved, reasons, problems)


def default_lr(objective: str, *, lora: bool) -> float:
    """Returns the peak learning rate of `optimizer.lr=auto`."""
    rate = PREFERENCE_LR.get(objective, FULL_LR)
    return float(f"{rate * LORA_FACTOR:g}") if lora else rate


def _reason(objective: str, how: str) -> str:
    return f"default for {objective}, {how}" if objective in PREFERENCE_LR else f"default for {how}"


def _choose_engine(config: RunConfig, facts: Facts) -> Choice:
    """Returns the cheapest engine that fits and that the other keys leave; all else is resolved already."""
    model, setup, machine = _held(config, facts)
    asked = asked_for(config, setup.ranks)
    free = not_refused(config, facts, asked)
    # One that a rule refuses comes last: if it alone fits, the rule says what stands in the way.
    return choose_engine(model, setup, machine, sorted(asked, key=lambda candidate: candidate not in free))


def _held(config: RunConfig, facts: Facts) -> tuple[Model | None, Setup, Machine]:
    """Returns what takes memory, how it is trained (under ddp), and where."""
    ranks, adapter = max(1, int(config.engine.processes)), config.adapter
    lora = {
        "rank": adapter.rank,
        "target_modules": adapter.target_modules,
        "modules_to_save": adapter.modules_to_save,
        "dora": adapter.dora,
    }
    micro = config.training.micro_batch_size
    setup = dataclasses.replace(setup_of(config, ranks), micro_batch_size=micro if isinstance(micro, int) else 1)
    machine = Machine(facts.gpu_bytes, facts.host_bytes, min(ranks, facts.num_gpus) or ranks)
    shapes = model_of(facts.model, lora if adapter.name == "lora" else None, is_reward=config.objective.name == "reward")
    return shapes, setup, machine


def freeze(config: RunConfig) -> str:
    """Returns the complete configuration as YAML; `thaw` gives an equal one back."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def thaw(text: str) -> RunConfig:
    """Rebuilds a configuration from `freeze`'s YAML.

    Raises:
        ConfigError: a key or value that the schema does not know.
    """
    values = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(values, dict)
    config = RunConfig()
    problems = []
    for section, fields in values.items():
        for key, value in fields.items():
            problem = _set(config, Assignment((str(section), str(key)), value, "frozen configuration: "))
            problems += [problem] if problem else []
    if problems:
        raise ConfigError(problems)
    return config


def identity(config: RunConfig) -> str:
    """Returns the SHA-256 over the identity fields of a resolved configuration, in hex.

    Duration belongs to it only where the schedule depends on it (linear, cosine, wsd's decay), a key of the objective only
    where the objective reads it.
    """
    values = {
        f"{section.name}.{field.name}": getattr(getattr(config, section.name), field.name)
        for section in dataclasses.fields(config)
        for field in dataclasses.fields(getattr(config, section.name))
        if field.metadata["identity"]
    }
    if config.lr_scheduler.name == "constant":
        del values["training.duration"]
    for key, readers in READERS.items():
        if config.objective.name not in readers:  # so a new key of one objective leaves the names of all other runs alone
            del values[f"objective.{key}"]
    plain = {key: _plain(value) for key, value in values.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def run_name(config: RunConfig, stem: str) -> str:
    """Returns `<stem>-<6 hex of the identity>`."""
    return f"{stem}-{identity(config)[:6]}"
