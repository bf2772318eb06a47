"""Presets hold what AutoConfig understands, and the sizes that their names promise."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from configs import compose
from configs.facts import Facts, facts_of
from configs.frontdoor import preset_names
from configs.rules import check
from configs.schema import EngineSection

FOLDER = Path(configs.__file__).parent / "model"
# Parameters in billions: from the models' cards (SmolLM2: 134.5 M; DeepSeek-V3: 671 B without its prediction module).
SIZES = {
    "smollm2_135m": 0.1345,
    "qwen3_0.6b": 0.596,
    "qwen3_1.7b": 1.72,
    "qwen3_4b": 4.02,
    "qwen3_8b": 8.19,
    "qwen3_14b": 14.77,
    "qwen3_32b": 32.76,
    "llama3.2_1b": 1.236,
    "llama3.2_3b": 3.213,
    "llama3.1_8b": 8.03,
    "llama3.3_70b": 70.55,
    "deepseek_v3": 671.0,
    "tiny_llama": 0.0009,
    "tiny_qwen3": 0.0009,
    "tiny_deepseek_v3": 0.0011,
}
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def arch_of(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["arch"])


def test_every_preset_has_its_size_here() -> None:
    assert sorted(SIZES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_autoconfig_takes_every_value(name: str) -> None:
    from transformers import AutoConfig

    arch = arch_of(name)
    config = AutoConfig.for_model(arch["model_type"], **{key: value for key, value in arch.items() if key != "model_type"})
    for key, value in arch.items():
        found = config.rope_parameters["rope_theta"] if key == "rope_theta" else getattr(config, key)
        assert found == value, key


@pytest.mark.parametrize("name", NAMES)
def test_the_model_has_the_size_that_its_name_promises(name: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    arch = arch_of(name)
    config = AutoConfig.for_model(arch.pop("model_type"), **arch)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() / 1e9 == pytest.approx(SIZES[name], rel=0.02 if SIZES[name] > 0.01 else 0.2)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_composes(name: str, tmp_path: Path) -> None:
    loaded = compose.load([f"model={name}", f"model.path={tmp_path}", f"data={tmp_path}/a.jsonl"])
    assert loaded.config.model.arch == arch_of(name)
    problems = check(loaded.config, facts_of(loaded.config))
    assert problems == [f"model.path={tmp_path}: no config.json there; expected a Hugging Face model folder"]


def test_a_shape_without_weights_is_refused() -> None:
    loaded = compose.load(["model=qwen3_8b", "data=a.jsonl"])
    assert check(loaded.config, facts_of(loaded.config)) == [
        "model.path: a preset's shape without weights; give a Hugging Face model folder: model.path=FOLDER"
    ]


# What each preset of an engine is, beside the name that it could also be called by.
ENGINES = {
    "zero2_offload": {"name": "zero2", "offload_optimizer": True},
    "zero3_offload": {"name": "zero3", "offload_optimizer": True, "offload_parameters": True},
    "fsdp2_offload": {"name": "fsdp2", "offload_parameters": True},
    "hsdp": {"name": "fsdp2", "shard_size": 8},
}


@pytest.mark.parametrize("name", preset_names("engine"))
def test_every_engine_preset_is_what_its_name_says(name: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"engine: {{preset: {name}, processes: 8}}\n")
    for given in ([f"engine={name}", "engine.processes=8"], [str(tmp_path / "run.yaml")]):
        config = compose.load(["model=tiny_llama", "model.tokenizer=.", "data=.", *given]).config
        plain = EngineSection(processes=8)
        changed = {f.name for f in fields(plain) if getattr(config.engine, f.name) != getattr(plain, f.name)}
        assert {key: getattr(config.engine, key) for key in changed} == ENGINES[name]
        assert check(config, Facts(num_gpus=8)) == []


def test_every_engine_preset_has_its_meaning_here() -> None:
    assert sorted(ENGINES) == preset_names("engine")


@pytest.mark.parametrize(
    ("file", "word", "expected"),
    [
        ("engine: ddp", "engine=fsdp2_offload", {"name": "fsdp2", "offload_parameters": True}),
        ("engine: auto", "engine=zero3_offload", ENGINES["zero3_offload"]),
        ("engine: zero3_offload", "engine=zero2", {"name": "zero2"}),
        ("engine: hsdp", "engine=zero3", {"name": "zero3"}),
        ("engine: zero3_offload", "engine=hsdp", ENGINES["hsdp"]),
        ("engine: {name: zero3, offload_parameters: false}", "engine=zero3_offload", ENGINES["zero3_offload"]),
        # Single fields stay what they were told to be.
        ("engine: zero3_offload", "engine.offload_parameters=false", {"name": "zero3", "offload_optimizer": True}),
        ("engine: {preset: zero3_offload, offload_parameters: false}", "training.seed=2", {"name": "zero3", "offload_optimizer": True}),
        ("engine: {name: zero3, offload_optimizer: true}", "engine=zero2", {"name": "zero2", "offload_optimizer": True}),
    ],
)
def test_a_section_named_on_the_command_line_is_what_counts(
    tmp_path: Path, file: str, word: str, expected: dict[str, object]
) -> None:
    (tmp_path / "run.yaml").write_text(f"model: {{preset: tiny_llama, tokenizer: .}}\ndata: .\n{file}\n")
    found, plain = compose.attempt([str(tmp_path / "run.yaml"), word]).config.engine, EngineSection()
    changed = {f.name for f in fields(plain) if getattr(found, f.name) != getattr(plain, f.name)}
    assert {key: getattr(found, key) for key in changed} == expected


def test_a_model_named_on_the_command_line_is_the_one(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: /models/other\ndata: .\n")
    model = compose.attempt([str(tmp_path / "run.yaml"), "model=tiny_llama"]).config.model
    assert model.path is None and model.arch["model_type"] == "llama"
    (tmp_path / "run.yaml").write_text("model: tiny_llama\ndata: .\n")
    model = compose.attempt([str(tmp_path / "run.yaml"), "model=/models/other"]).config.model
    assert (model.path, model.arch, model.random_weights) == ("/models/other", {}, False)


def test_every_experiment_composes() -> None:
    from configs.chain import is_chain, read_chain
    from configs.help import experiments

    for name in experiments():
        words = [f"experiment={name}"]
        if not is_chain(words):
            assert compose.load(words).config.data.train, name
            continue
        chain = read_chain(words)
        # What the corpora's builders write need not be there.
        found = [line for line in chain.problems if "no such file" not in line]
        assert not found and not any(stage.attempted.problems for stage in chain.stages), name
