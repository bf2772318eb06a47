"""`aisc prove CHAIN.yaml`: each stage that trains a language model, one after another, as `aisc prove` proves a run.

A later stage begins from what the one before it wrote, which has the first model's shape: that is what is proven.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cli.prove import UNKNOWN, as_json, ask, read_options, run, show
from cli.screens import console
from configs.atomic import write_json
from configs.chain import KEY, Chain, join_problems, read_chain
from configs.errors import ConfigError

if TYPE_CHECKING:
    from train.prove.prove import Asked


def main(arguments: Sequence[str]) -> int:
    """Runs the verb on a chain; 1 when something is broken in some stage."""
    options, words = read_options(arguments)
    chain = read_chain(words)
    asked = ask_stages(chain, options, shlex.join(words))
    screen = console()
    found: dict[str, dict[str, Any]] = {}
    for number, stage in enumerate(chain.stages, start=1):
        title = f"stage {number} of {len(chain.stages)}  {stage.name}"
        objective = stage.attempted.config.objective.name
        if stage.name not in asked:
            screen.print(Text(f"{title}   objective={objective}: has no plain loop, not compared\n"), soft_wrap=True)
            continue
        screen.print(Text(f"{title}   objective={objective}", style="bold"), soft_wrap=True)
        proof = run(screen, asked[stage.name])
        show(screen, proof)
        screen.print()
        found[stage.name] = as_json(proof)
    broken = [name for name, proof in found.items() if not proof["holds"]]
    left = [stage.name for stage in chain.stages if stage.name not in found]
    if "--json" in options:
        write_json(Path(options["--json"]), {"holds": not broken, "stages": found, "not_compared": left})
    verdict = f"broken in {', '.join(broken)}" if broken else f"{', '.join(found)} hold{'s' if len(found) == 1 else ''}"
    rest = f"; not compared: {', '.join(left)}" if left else ""
    screen.print(Text(f"{chain.stem}: {verdict}{rest}"), soft_wrap=True)
    return 1 if broken else 0


def ask_stages(chain: Chain, options: dict[str, str], command: str) -> dict[str, Asked]:
    """Returns what is to be proven, by stage; those of rewards are left out.

    Raises:
        ConfigError: the problems of all stages, each once, or that no stage can be proven.
    """
    asked: dict[str, Asked] = {}
    problems: dict[str, list[str]] = {}
    for stage in chain.stages:
        if stage.attempted.config.objective.name == UNKNOWN:
            continue
        problems[stage.name] = []
        try:
            asked[stage.name] = ask(stage.attempted, options, command)
        except ConfigError as error:
            problems[stage.name] = error.problems
    if not problems:
        raise ConfigError(f"{KEY}: all of objective={UNKNOWN}; expected a stage that trains a language model")
    if found := [*join_problems(problems), *chain.problems]:
        raise ConfigError(found)
    return asked
