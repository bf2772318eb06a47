"""What an objective goes with: rules that need more than its own section."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.facts import Facts
from configs.reward import names_classifier
from configs.schema import RunConfig
from configs.schema.objective import REFERENCED, START


def objective_problems(config: RunConfig, facts: Facts) -> list[str]:
    """Returns every broken rule of the objective, one sentence each: what was given, what was expected, what to do."""
    return [*_reward(config), *_classifier(config, facts), *_reference(config)]


def _reward(config: RunConfig) -> Iterator[str]:
    if config.objective.name == "reward" and config.adapter.name != "none":
        yield (
            f"adapter={config.adapter.name}: a reward model is trained whole, its new head beside the weights below it; "
            "expected adapter=none"
        )


def _classifier(config: RunConfig, facts: Facts) -> Iterator[str]:
    if names_classifier(facts.model) and config.objective.name != "reward":
        yield (
            f"model.path={config.model.path}: holds a reward model, which has no head of words for "
            f"objective={config.objective.name} to train; objective=reward goes on with it"
        )


def _reference(config: RunConfig) -> Iterator[str]:
    path, given = config.objective.reference, config.model.tokenizer or config.model.path
    if path == START or config.objective.name not in REFERENCED:
        return
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file():
        what = "no config.json there" if folder.is_dir() else "no such folder"
        yield f"objective.reference={path}: {what}; expected a Hugging Face model folder, or {START}"
        return
    theirs, ours = _vocabulary(folder), _vocabulary(Path(given).expanduser()) if given else None
    if theirs is None or ours is None or theirs == ours:
        return
    sizes = f"its tokenizer knows {len(theirs):,} tokens, the model's {len(ours):,}"
    if len(theirs) == len(ours):
        sizes += ", but other ones"
    yield (
        f"objective.reference={path}: {sizes}; log-probabilities of other tokens cannot be compared: expected a reference "
        f"with the model's own vocabulary, or {START}"
    )


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """Returns token to id of a folder's tokenizer.json, None where there is none that can be read."""
    try:
        values: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = values["model"]["vocab"]
        added = {token["content"]: token["id"] for token in values.get("added_tokens", [])}
        return {**vocabulary, **added} if isinstance(vocabulary, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
