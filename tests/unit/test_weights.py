"""Starting weights read part by part from safetensors are those that transformers loads whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from configs.errors import ConfigError
from configs.schema import AdapterSection
from train import adapters
from train.scores import base_model
from train.weights import ModelFolder, StartingWeights, plain_name

PRESETS = Path(__file__).parents[2] / "configs" / "model"


def make_model(name: str) -> Any:
    """Returns the preset with random weights, experts fused and embeddings tied where it has them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    arch = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())["arch"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(arch.pop("model_type"), **arch), dtype=torch.float32)
    for buffer_name, buffer in model.named_buffers():
        if "correction_bias" in buffer_name:
            buffer.normal_()
    return model


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_qwen3", "tiny_deepseek_v3"])
def test_every_weight_and_buffer_of_the_files(tmp_path: Path, name: str) -> None:
    model = make_model(name)
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    folder = ModelFolder.open(str(tmp_path), model)
    for key, value in model.state_dict().items():
        if key != "lm_head.weight" or not model.config.tie_word_embeddings:
            torch.testing.assert_close(folder.read(key), value, rtol=0, atol=0)


def test_a_part_is_that_part_and_adapters_are_drawn(tmp_path: Path) -> None:
    model = make_model("tiny_deepseek_v3")
    model.save_pretrained(tmp_path)
    adapted: nn.Module = adapters.attach(model, AdapterSection(name="lora", rank=4), seed=3)
    shapes = {key: tuple(parameter.shape) for key, parameter in adapted.named_parameters()}
    weights = StartingWeights(ModelFolder.open(str(tmp_path), base_model(adapted)), shapes, seed=3)
    for key, parameter in adapted.named_parameters():
        whole = parameter.detach().reshape(-1)
        assert torch.equal(weights.read_flat(key, 5, 17), whole[5:17]), key
    assert any("experts" in plain_name(key) for key in shapes)


def test_files_of_another_shape_are_refused(tmp_path: Path) -> None:
    model = make_model("tiny_llama")
    model.save_pretrained(tmp_path)
    shapes = {"model.norm.weight": (64,)}
    weights = StartingWeights(ModelFolder.open(str(tmp_path), model), shapes, seed=1)
    with pytest.raises(ConfigError, match=r"model.norm.weight has shape \(128,\), config.json says \(64,\)"):
        weights.read("model.norm.weight")
