"""A frozen configuration loads to an equal one, of equal identity; identity is what can change a loss curve."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import compose
from configs.chain import is_chain
from configs.help import experiments
from configs.schema import RunConfig

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


@pytest.mark.parametrize("experiment", [name for name in experiments() if not is_chain([f"experiment={name}"])])
def test_experiments_freeze_and_thaw(experiment: str) -> None:
    config = compose.load([f"experiment={experiment}"]).config
    assert compose.thaw(compose.freeze(config)) == config


# To write and read a whole configuration takes 0.1 s, whatever the values: many values in each, fewer of them.
@settings(max_examples=40, deadline=None)
@given(prompt=TEXTS, path=TEXTS, lr=st.floats(1e-9, 1.0), names=st.lists(TEXTS, max_size=12), argument=st.booleans())
def test_any_values_freeze_and_thaw(prompt: str, path: str, lr: float, names: list[str], argument: bool) -> None:
    config = RunConfig()
    config.data.system_prompt, config.data.train, config.optimizer.lr = prompt, path, lr
    config.adapter.target_modules = names
    config.data.template_args = {"enable_thinking": argument}
    again = compose.thaw(compose.freeze(config))
    assert again == config and compose.identity(again) == compose.identity(config)


def changed(section: str, name: str, value: Any) -> str:
    config = RunConfig()
    setattr(getattr(config, section), name, value)
    return compose.identity(config)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("training", "seed", 2),
        ("training", "global_batch_size", 8),
        ("data", "sequence_length", 64),
        ("optimizer", "lr", 1e-3),
        ("adapter", "rank", 3),
        ("training", "precision", "bf16"),
        ("training", "duration", "5 steps"),
    ],
)
def test_what_changes_a_curve_changes_the_identity(section: str, name: str, value: Any) -> None:
    assert changed(section, name, value) != compose.identity(RunConfig())


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("training", "micro_batch_size", 2), ("engine", "processes", 4), ("checkpoint", "every", "5 steps"), ("run", "dir", "/x")],
)
def test_how_it_runs_does_not(section: str, name: str, value: Any) -> None:
    assert changed(section, name, value) == compose.identity(RunConfig())


def test_duration_is_no_identity_under_a_constant_schedule() -> None:
    short, long = RunConfig(), RunConfig()
    for config, duration in ((short, "5 steps"), (long, "9 steps")):
        config.lr_scheduler.name, config.training.duration = "constant", duration
    assert compose.identity(short) == compose.identity(long)


def test_every_field_says_what_it_is() -> None:
    for section in dataclasses.fields(RunConfig):
        for field in dataclasses.fields(getattr(RunConfig(), section.name)):
            assert len(field.metadata["help"]) > 15 and isinstance(field.metadata["identity"], bool), field.name
