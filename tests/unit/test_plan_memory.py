"""A plan's activations against what autograd saves of real models on a CPU: three families, one of a shape drawn each time."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from configs import compose
from configs.facts import Facts, Shape
from configs.site import Site
from launch.plan import make_plan
from launch.plan.figures import GB
from tests.unit.test_activations import GROUPED, LATENT, TOKENS, build, saved_bytes

BOUND = 0.10


def drawn_shape() -> dict[str, Any]:
    """Returns values of a config.json drawn anew in every run; its seed is printed, so that a failure can be repeated."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"shape drawn with seed {seed}")
    draw = random.Random(seed)
    heads = draw.choice([2, 4, 6])
    values = {
        "model_type": draw.choice(["llama", "qwen2", "qwen3"]),
        "vocab_size": 320,
        "hidden_size": heads * draw.choice([16, 32, 48]),
        "intermediate_size": draw.randrange(48, 700),
        "num_hidden_layers": draw.randrange(1, 5),
        "num_attention_heads": heads,
        "num_key_value_heads": draw.choice([2, heads]),
        "head_dim": draw.choice([16, 32, 64]),
        "max_position_embeddings": 256,
        "tie_word_embeddings": draw.random() < 0.5,
    }
    print(values)
    return values


MODELS = {"qwen3": {**GROUPED, "model_type": "qwen3"}, "deepseek_v3": {**LATENT, "topk_group": 2}, "drawn": None}


@pytest.mark.parametrize("name", MODELS)
def test_planned_activations_are_what_autograd_saves(name: str) -> None:
    values = MODELS[name] or drawn_shape()
    loaded = compose.load(
        [
            "model.random_weights=true",
            *(f"model.arch.{key}={value}" for key, value in values.items() if value is not None and not isinstance(value, (dict, list))),
            f"data.sequence_length={TOKENS}",
            "data.validation=none",
            "training.duration=3 steps",
            "training.micro_batch_size=1",
            "engine.name=ddp",
        ]
    )
    facts = Facts(num_gpus=0, model=values, world_size=1)
    plan = make_plan(compose.resolve(loaded.config, facts).config, Site(), Shape(1, 0, 1, 1), facts)
    planned = (plan.column.memory["activations"].value or 0.0) * GB
    assert planned == pytest.approx(saved_bytes(build(values, torch.float32), None), rel=BOUND)
