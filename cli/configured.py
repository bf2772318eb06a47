"""The configuration that a verb was given: loaded, resolved and checked, before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from configs import compose
from configs.deepspeed_keys import settings_of
from configs.errors import ConfigError
from configs.facts import facts_of
from configs.rules import check
from configs.schema import RunConfig


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
    facts = facts_of(config)
    resolved = compose.resolve(config, facts)
    attempted.add([*resolved.problems, *check(resolved.config, facts, trains=trains)])
    if attempted.problems:
        raise ConfigError(attempted.problems)
    if resolved.config.engine.deepspeed is not None:
        # The settings themselves: a file that is edited while the job waits changes nothing.
        resolved.config.engine.deepspeed = settings_of(resolved.config.engine)
    return Given(resolved.config, resolved.reasons, stem)
