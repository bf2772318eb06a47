"""The configuration that a verb was given: loaded, resolved and checked, before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from configs import compose
from configs.deepspeed_keys import settings_of
from configs.errors import ConfigError
from configs.facts import Facts, Shape, facts_of, facts_on_cluster, shape_of
from configs.rules import check
from configs.schema import RunConfig
from configs.site import Site, read_site


@dataclass(frozen=True, slots=True)
class Given:
    """`config` with every `auto` resolved but the micro-batch, `reasons` why; `stem` names the run."""

    config: RunConfig
    reasons: dict[str, str]
    stem: str


def load_checked(arguments: Sequence[str], *, is_smoke: bool = False, trains: bool = False) -> Given:
    """Returns what `[RUN.yaml] [key=value ...]` asks for; with `trains` what only a run needs is checked too.

    Raises:
        ConfigError: every problem found, one line each.
    """
    attempted = compose.attempt(arguments)
    config, stem = attempted.config, attempted.stem
    if is_smoke:
        from configs.smoke import smoke_config

        config, stem = smoke_config(config), f"{stem}-smoke"
    return _resolved(attempted, config, stem, facts_of(config), trains=trains)


def checked_here(attempted: compose.Attempted) -> Given:
    """Returns one stage of a chain, resolved and checked as a run on this machine.

    Raises:
        ConfigError: every problem found, one line each.
    """
    return _resolved(attempted, attempted.config, attempted.stem, facts_of(attempted.config), trains=True)


def load_for_data(arguments: Sequence[str]) -> RunConfig:
    """Returns what `[RUN.yaml] [key=value ...]` asks for, for work on its data alone.

    What it says of GPUs and engines is not this machine's concern: the data of a GPU run is prepared on CPU nodes.

    Raises:
        ConfigError: every problem found, one line each, but those of the engine and its arithmetic.
    """
    attempted = compose.attempt(arguments)
    facts = facts_of(attempted.config)
    config = compose.resolve(attempted.config, facts).config
    attempted.add([line for line in check(config, facts) if line.startswith(("data.", "objective.", "model.path", "model.tokenizer"))])
    if attempted.problems:
        raise ConfigError(attempted.problems)
    return config


@dataclass(frozen=True, slots=True)
class GivenForCluster:
    """As `Given`, resolved for the nodes that it asks for instead of for this machine."""

    config: RunConfig
    reasons: dict[str, str]
    stem: str
    facts: Facts
    site: Site
    shape: Shape


def load_for(arguments: Sequence[str]) -> GivenForCluster:
    """Returns what `[RUN.yaml] [key=value ...]` asks for, for the queue; this machine may be a login node without GPU.

    Raises:
        ConfigError: every problem found, one line each.
    """
    return checked_for_cluster(compose.attempt(arguments))


def checked_for_cluster(attempted: compose.Attempted) -> GivenForCluster:
    """As `load_for`, of what has been read already."""
    config = attempted.config
    if config.cluster.name == "local":
        attempted.add(["cluster.name=local: is this machine, where aisc train runs; for the queue: cluster=slurm or cluster=aisc"])
    if attempted.problems:
        raise ConfigError(attempted.problems)
    site = read_site(config.cluster)
    shape = shape_of(config.cluster, site)
    facts = facts_on_cluster(config, site, shape)
    given = _resolved(attempted, config, attempted.stem, facts, trains=True)
    return GivenForCluster(given.config, given.reasons, given.stem, facts, site, shape)


def _resolved(attempted: compose.Attempted, config: RunConfig, stem: str, facts: Facts, *, trains: bool) -> Given:
    resolved = compose.resolve(config, facts)
    attempted.add([*resolved.problems, *check(resolved.config, facts, trains=trains)])
    if attempted.problems:
        raise ConfigError(attempted.problems)
    if resolved.config.engine.deepspeed is not None:
        # The settings themselves: a file that is edited while the job waits changes nothing.
        resolved.config.engine.deepspeed = settings_of(resolved.config.engine)
    return Given(resolved.config, resolved.reasons, stem)
