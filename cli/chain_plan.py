"""A chain as it is asked for: read, every stage composed and checked, its folder made. Nothing is run or submitted."""

from __future__ import annotations

import copy
import hashlib
import importlib
import itertools
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.configured import Given, GivenForCluster
from configs import atomic
from configs.chain import EVALUATE, KEY, RELEASE, Chain, Stage, join_problems, read_chain, with_model
from configs.compose import Attempted, freeze, identity
from configs.errors import ConfigError, UserError
from configs.runfolder import read_json, runs_dir
from configs.schema import RunConfig
from launch.chain import FILE, MODEL, ChainFolder, ChainInfo, StageState, chain_hash

# Words of `cluster.stages` and the stage of a chain that does the same.
JOBS_OF_ONE_RUN = {"eval": EVALUATE, "export": RELEASE}
Loader = Callable[[Attempted], Given | GivenForCluster]


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A training stage, checked.

    Attributes:
        given: with the model of the first stage, from which facts and estimates come.
        config: what its run gets: it begins from the former stage's model.
        merges: its adapter is merged, because the next stage begins from whole weights.
    """

    name: str
    given: Given | GivenForCluster
    config: RunConfig
    identity: str
    merges: bool


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """A chain, read and checked, nothing written; `words` is what evaluate and release are told."""

    chain: ChainFolder
    stem: str
    stages: list[StagePlan]
    words: dict[str, list[str]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All stages in their order."""
        return [*(stage.name for stage in self.stages), *self.words]


def make_plan(arguments: Sequence[str], load: Loader) -> ChainPlan:
    """Returns the chain of `CHAIN.yaml [key=value ...]`, every stage composed and checked.

    Raises:
        ConfigError: the problems of all stages, each once, with the stages that have it.
    """
    read = read_chain(arguments)
    given = check_stages(read, load)
    merges = [one.config.adapter.name != "none" and number + 1 < len(given) for number, one in enumerate(given)]
    identities = [_identity(one.config, read.stages, number) for number, one in enumerate(given)]
    first = given[0]
    site = first.site if isinstance(first, GivenForCluster) else None
    parent = runs_dir(first.config.run.dir or (site.storage.runs if site is not None else None)).expanduser().absolute()
    name = f"{read.stem}-{chain_hash([(stage.name, one) for stage, one in zip(read.stages, identities, strict=True)])}"
    chain = ChainFolder(parent / name)
    stages = []
    for number, (stage, one) in enumerate(zip(read.stages, given, strict=True)):
        config = copy.deepcopy(one.config)
        if number:
            config = with_model(config, chain.run_of(read.stages[number - 1].name).path / MODEL, stage.own_tokenizer)
        config.export.merge |= merges[number]
        config.run.name, config.run.dir = f"{read.stem}-{stage.name}", str(chain.path)
        stages.append(StagePlan(stage.name, one, config, identities[number], merges[number]))
    last = {EVALUATE: read.evaluate, RELEASE: read.release}
    if read.release is not None:  # export knows the sources of the last run only
        named = stages[-1].config.data.named_sources()
        read.release.licences = {name: text for name, text in read.release.licences.items() if name in named}
    return ChainPlan(chain, read.stem, stages, {key: value.words() for key, value in last.items() if value is not None})


def check_stages(read: Chain, load: Loader) -> list[Given | GivenForCluster]:
    """Returns each training stage's configuration.

    Raises:
        ConfigError: the problems of all stages, each once.
    """
    given: list[Given | GivenForCluster] = []
    found: dict[str, list[str]] = {}
    for stage in read.stages:
        found[stage.name] = []
        try:
            given.append(load(stage.attempted))
        except ConfigError as error:
            found[stage.name] = error.problems
        found[stage.name] += _jobs_of_one_run(stage.attempted.config)
    problems = [*join_problems(found), *read.problems, *_behind_reward(read), *_unknown_tasks(read), *_missing_licences(read)]
    if problems:
        raise ConfigError(problems)
    return given


def _jobs_of_one_run(config: RunConfig) -> list[str]:
    """Returns what is wrong with `cluster.stages`: of a chain, its own last stages evaluate and release."""
    wanted = [name for name in config.cluster.stages if name in JOBS_OF_ONE_RUN]
    if not wanted:
        return []
    instead = ", ".join(f"{KEY}.{JOBS_OF_ONE_RUN[name]}: {{}}" for name in wanted)
    return [f"cluster.stages: {', '.join(wanted)}: belongs to a single run; a chain does it by a stage of its own. Leave it out and write {instead}"]


def _behind_reward(read: Chain) -> list[str]:
    """Returns the stages that cannot do anything with the reward model that the stage before them makes."""
    names = [stage.attempted.config.objective.name for stage in read.stages]
    made = "makes a reward model, which scores answers and writes none"
    found = [
        f"{KEY}.{stage.name}: {KEY}.{before.name} {made}; after it only objective=reward goes on. Let {before.name} be the last"
        for (before, stage), (first, second) in zip(itertools.pairwise(read.stages), itertools.pairwise(names), strict=True)
        if first == "reward" != second
    ]
    if names[-1] == "reward":
        last = [name for name, stage in ((EVALUATE, read.evaluate), (RELEASE, read.release)) if stage is not None]
        found += [f"{KEY}.{name}: {KEY}.{read.stages[-1].name} {made}; leave {name} out, its accuracy is in the run's report" for name in last]
    return found


def _unknown_tasks(read: Chain) -> list[str]:
    """Returns what is wrong with the packs and tasks of `evaluate`: known now, not after the training."""
    if read.evaluate is None or not (read.evaluate.packs or read.evaluate.tasks):
        return []
    try:
        importlib.import_module("train.packs").choose(read.evaluate.packs, read.evaluate.tasks)
    except UserError as error:
        return [f"stages.{EVALUATE}: {line}" for line in str(error).splitlines()]
    return []


def _missing_licences(read: Chain) -> list[str]:
    """Returns the sources of all stages whose licence nobody says: a model made from them cannot be released."""
    if read.release is None:
        return []
    found = []
    for stage in read.stages:
        data = stage.attempted.config.data
        said = {**{name: source.licence for name, source in data.sources.items() if source.licence}, **read.release.licences}
        found += [
            f"stages.{RELEASE}: no licence for source {name} of stage {stage.name}; expected data.licence, data.sources.NAME.licence "
            f"or stages.{RELEASE}.licences.{name}=LICENCE"
            for name in data.named_sources()
            if not data.licence.strip() and not said.get(name, "").strip()
        ]
    return found


def _identity(config: RunConfig, stages: Sequence[Stage], number: int) -> str:
    """Returns a stage's identity in which the former stage's model has its name, as its folder has the chain's."""
    if number == 0:
        return identity(config)
    return identity(with_model(config, Path(stages[number - 1].name) / MODEL, stages[number].own_tokenizer))


def write_chain(plan: ChainPlan, verb: str, arguments: Sequence[str]) -> ChainFolder:
    """Makes the chain's folder and the frozen configuration of each stage that is not done; one that is there goes on."""
    chain = plan.chain
    for stage in plan.stages:
        run = chain.run_of(stage.name).path
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A job reads the one it was submitted with: `launch` writes it at submission.
        if verb == "train" and not (run / "result.json").exists():
            atomic.write_file(run / "launch.yaml", freeze(stage.config))
    command = f"aisc {verb} {shlex.join(arguments)}"
    with chain.changing():
        known = {(stage.name, stage.kind, stage.identity): stage for stage in known_stages(chain)}
        # What is evaluated or released in another way than before is as new.
        states = [known.get((one.name, one.kind, one.identity), one) for one in new_states(plan)]
        created = float((read_json(chain.path / FILE) or {}).get("created", time.time()))
        chain.write(ChainInfo(stem=plan.stem, folder=str(Path.cwd()), command=command, created=created, stages=states))
    return chain


def known_stages(chain: ChainFolder) -> list[StageState]:
    """Returns the stages in chain.json; none of a chain that nobody has begun."""
    return chain.info().stages if (chain.path / FILE).exists() else []


def new_states(plan: ChainPlan) -> list[StageState]:
    """Returns the stages as nothing of them has run."""
    former, states = None, []
    for stage in plan.stages:
        run = plan.chain.run_of(stage.name).name
        states.append(StageState(name=stage.name, kind="train", run=run, identity=stage.identity, former=former))
        former = stage.name
    for name, words in plan.words.items():
        told = hashlib.sha256(json.dumps(words).encode()).hexdigest()
        states.append(StageState(name=name, kind=name, run=states[len(plan.stages) - 1].run, identity=told, former=former))
    return states
