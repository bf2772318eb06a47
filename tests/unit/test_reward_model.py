"""A reward model: its head, its rewards in packed rows against transformers' own classifier, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from configs.errors import CheckpointError, ConfigError
from configs.facts import Facts
from configs.objective_rules import objective_problems
from configs.reward import is_classifier
from configs.schema import AdapterSection, ModelSection, ObjectiveSection, RunConfig
from data_pipelines.collate import collate
from tests.distributed.preference import pairs
from tests.small_store import write_store
from train import attention, models
from train.reward_scores import RewardScores, add_head, check_head, initial_head, set_padding

SHAPE: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
CPU = torch.device("cpu")


def causal_folder(folder: Path) -> str:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    return str(folder)


def load(path: str, seed: int = 1) -> Any:
    section = ModelSection(path=path)
    model = models.load_model(
        section, dtype=torch.float32, attention_name=attention.VARLEN_CPU, device=CPU, seed=seed, is_reward=True
    )
    add_head(model, path, seed)
    return model


def test_a_reward_is_the_classifiers_at_the_last_token(tmp_path: Path) -> None:
    model = load(causal_folder(tmp_path / "base"))
    store = write_store(tmp_path / "store", pairs(last_only=True), sequence_length=96)
    scores = RewardScores(model, precision="fp32").eval()
    batch = collate(store, np.arange(store.num_rows), 0)
    assert batch.num_targets == store.num_documents
    with torch.no_grad():
        packed, alone = scores(batch), scores(batch, plainly=True)
    assert packed.dtype == torch.float32 and len({round(value, 5) for value in packed.tolist()}) == store.num_documents
    assert torch.allclose(packed, alone, rtol=1e-5, atol=1e-6)


def test_autocast_leaves_the_reward_its_digits(tmp_path: Path) -> None:
    model = load(causal_folder(tmp_path / "base"))
    store = write_store(tmp_path / "store", pairs(last_only=True), sequence_length=96)
    batch = collate(store, np.arange(store.num_rows), 0)
    with torch.no_grad():
        exact, rounded = (RewardScores(model, precision=precision).eval()(batch) for precision in ("fp32", "bf16"))
    assert torch.allclose(exact, rounded, atol=0.02 * float(exact.abs().max()))
    assert (rounded.bfloat16().float() != rounded).float().mean() > 0.9


def test_the_head_depends_on_the_seed_alone(tmp_path: Path) -> None:
    path = causal_folder(tmp_path / "base")
    one, same, other = load(path), load(path), load(path, seed=2)
    assert torch.equal(one.score.weight, same.score.weight)
    assert torch.equal(one.score.weight, initial_head(one, 1))
    assert not torch.equal(one.score.weight, other.score.weight)
    assert 0.01 < float(one.score.weight.detach().std()) < 0.04  # initializer_range is 0.02


def test_a_reward_model_keeps_its_head(tmp_path: Path) -> None:
    model = load(causal_folder(tmp_path / "base"))
    model.save_pretrained(tmp_path / "reward")
    assert torch.equal(load(str(tmp_path / "reward"), seed=5).score.weight, model.score.weight)


def test_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    LlamaForSequenceClassification(LlamaConfig(**SHAPE, num_labels=3)).save_pretrained(tmp_path / "three")
    with pytest.raises(ConfigError, match="classifies into 3 labels"):
        check_head(str(tmp_path / "three"))
    model = load(causal_folder(tmp_path / "base"))
    with pytest.raises(ConfigError, match="token 2 both pads and ends an answer"):
        set_padding(model, 2, [1, 2])
    model.save_pretrained(tmp_path / "reward")
    with pytest.raises(ConfigError, match="holds a reward model, which scores answers and writes none"):
        models.load_exported(tmp_path / "reward", device=CPU)


# Rules of the configuration


def vocabulary_folder(folder: Path, tokens: list[str]) -> str:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {token: i for i, token in enumerate(tokens)}}}))
    return str(folder)


def problems(objective: str, *, path: str | None = None, reference: str = "start", facts: dict[str, Any] | None = None) -> list[str]:
    config = RunConfig(
        model=ModelSection(path=path), objective=ObjectiveSection(name=objective, reference=reference), adapter=AdapterSection()
    )
    return objective_problems(config, Facts(num_gpus=0, model=facts or {}))


def test_a_reference_of_another_vocabulary(tmp_path: Path) -> None:
    ours, same, larger, other = (
        vocabulary_folder(tmp_path / name, tokens)
        for name, tokens in (("ours", ["a", "b"]), ("same", ["a", "b"]), ("larger", ["a", "b", "c"]), ("other", ["a", "x"]))
    )
    assert problems("dpo", path=ours, reference=same) == []
    assert problems("simpo", path=ours, reference="start") == []
    (line,) = problems("kto", path=ours, reference=larger)
    assert line == (
        f"objective.reference={larger}: its tokenizer knows 3 tokens, the model's 2; log-probabilities of other tokens cannot "
        "be compared: expected a reference with the model's own vocabulary, or start"
    )
    (line,) = problems("dpo", path=ours, reference=other)
    assert "its tokenizer knows 2 tokens, the model's 2, but other ones;" in line
    shutil.rmtree(same)
    (line,) = problems("dpo", path=ours, reference=same)
    assert line == f"objective.reference={same}: no such folder; expected a Hugging Face model folder, or start"


def test_reward_models_and_what_they_do_not_go_with() -> None:
    classifier = {"architectures": ["Qwen3ForSequenceClassification"]}
    assert problems("reward", path="/models/rm", facts=classifier) == []
    (line,) = problems("sft", path="/models/rm", facts=classifier)
    assert line == (
        "model.path=/models/rm: holds a reward model, which has no head of words for objective=sft to train; "
        "objective=reward goes on with it"
    )
    config = RunConfig(objective=ObjectiveSection(name="reward"), adapter=AdapterSection(name="lora"))
    (line,) = objective_problems(config, Facts(num_gpus=0))
    assert line.startswith("adapter=lora: a reward model is trained whole")


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen3For')
    with pytest.raises(CheckpointError, match="config.json: damaged"):
        is_classifier(tmp_path)
