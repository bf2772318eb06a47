"""The parity gate: it lets every recipe of ours through, and none of the faults planted here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from configs.errors import ConfigError, RunFailed
from configs.schema import AdapterSection, DataSection
from tests.kills.lab import make_chats, make_tokenizer
from tests.unit.test_export import SHAPES
from train import export
from train.adapters import attach
from train.export import convert, export_model
from train.parity import Gate, Trained, check_folder, observe, tokenizer_facts

VOCABULARY = 400
GATE = Gate([[5, 9, 200, 31, 7, 8, 350, 12], list(range(20, 60))], [2], 0)
METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"dora": True},
    "rslora": {"rslora": True},
    "head": {"modules_to_save": ["lm_head"]},
}


@pytest.fixture(autouse=True)
def own_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer with a chat template."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokens")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 40))
    return AutoTokenizer.from_pretrained(folder / "tokenizer")


def make_base(folder: Path, kind: str, tokenizer: Any, dtype: torch.dtype = torch.float32) -> Path:
    """A base model's folder with random weights, large enough to have something to say."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SHAPES[kind], "vocab_size": VOCABULARY}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def trained_adapter(folder: Path, base: Path, tokenizer: Any, method: str = "lora", **fields: Any) -> Trained:
    """An adapter with trained weights, in memory and exported to `folder`."""
    section = AdapterSection(name="lora", rank=4, alpha=8.0, **METHODS[method], **fields)
    model: Any = attach(load(base), section, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval()
    export_model(folder, model, tokenizer, DataSection(), reader=None, merge=False, dtype=torch.float32, card="")
    return Trained(model, tokenizer, GATE)


# peft trains no second copy of a tied head well, so `head` needs a model without one. DoRA knows no experts in one tensor.
RECIPES = [(kind, method, "float32") for kind in SHAPES for method in ("none", *METHODS) if (kind, method) != ("llama", "head")]
RECIPES += [(kind, method, "bfloat16") for kind in SHAPES for method in ("none", "lora")]


@pytest.mark.parametrize(("kind", "method", "dtype"), RECIPES)
def test_every_recipe_passes(tmp_path: Path, tokens: Any, kind: str, method: str, dtype: str) -> None:
    base = make_base(tmp_path / "base", kind, tokens)
    if method == "none":
        source, trained = base, Trained(load(base), tokens, GATE)
    else:
        fields = {"target_modules": ["kv_b_proj", "o_proj"]} if (kind, method) == ("deepseek_v3", "dora") else {}
        source, trained = tmp_path / "adapter", trained_adapter(tmp_path / "adapter", base, tokens, method, **fields)
    exported = convert(source, tmp_path / "out", merge=method != "none", dtype_name=dtype, trained=trained)
    assert exported.parity is not None and exported.parity["logits"] <= exported.parity["bound"]
    assert exported.parity["written"] <= 1e-5
    if method != "none":
        assert exported.parity["effect_share"] == pytest.approx(1, abs=0.1)
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert written == exported.parity
    assert set(written["prompts"][0]) == {"tokens", "reply_tokens", "reply_sha256"}, "no text"


def refusal(tmp_path: Path, tokens: Any, *, kind: str = "llama", method: str = "lora", dtype: str | None = None) -> str:
    """Merges a trained adapter and returns why the gate refused; nothing may be left of it."""
    base = make_base(tmp_path / "base", kind, tokens)
    trained = trained_adapter(tmp_path / "adapter", base, tokens, method)
    with pytest.raises(RunFailed) as caught:
        convert(tmp_path / "adapter", tmp_path / "out", merge=True, dtype_name=dtype, trained=trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merge_that_does_nothing_is_refused(
    tmp_path: Path, tokens: Any, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    from peft.tuners.lora.layer import Linear

    monkeypatch.setattr(Linear, "merge", lambda self, *_, **__: self.merged_adapters.append("default"))
    monkeypatch.setattr(Linear, "unmerge", lambda self: None)
    said = refusal(tmp_path, tokens, dtype=dtype)
    assert "the merged model: has 0.00 of the adapter's effect" in said and "nothing was merged" in said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merge_that_is_lost_on_the_way_to_the_folder_is_refused(
    tmp_path: Path, tokens: Any, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    real = export.write_weights
    base = tmp_path / "base"
    monkeypatch.setattr(export, "write_weights", lambda folder, plan, model, reader, type: real(folder, plan, load(base), reader, type))
    assert "the written folder: has 0.00 of the adapter's effect" in refusal(tmp_path, tokens, dtype=dtype)


@pytest.mark.parametrize(("method", "factor"), [("lora", 2.0), ("lora", 0.5), ("rslora", 4.0), ("dora", 4.0)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_scaling_in_the_exported_adapter_is_refused(
    tmp_path: Path, tokens: Any, method: str, factor: float, dtype: str
) -> None:
    base = make_base(tmp_path / "base", "qwen3", tokens)
    trained = trained_adapter(tmp_path / "adapter", base, tokens, method)
    path = tmp_path / "adapter" / "adapter_config.json"
    values = json.loads(path.read_text())
    # Far too large a scale saturates: then it is the logits that show it, within the wide bound of bfloat16.
    cause = "wrong alpha / rank" if dtype == "float32" else "wrong alpha / rank|logits differ"
    path.write_text(json.dumps({**values, "lora_alpha": values["lora_alpha"] * factor}))
    with pytest.raises(RunFailed, match=cause):
        convert(tmp_path / "adapter", tmp_path / "out", merge=True, dtype_name=dtype, trained=trained)
    assert not (tmp_path / "out").exists()


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    values = json.loads((folder / "tokenizer_config.json").read_text())
    values.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def other_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_end|>\n", "<|im_end|>"))


def other_special_token(folder: Path) -> None:
    values = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**values, "eos_token": "<|endoftext|>"}))


def untied(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, path, metadata={"format": "pt"})
    change_config(folder, tie_word_embeddings=False)


def other_eps(folder: Path) -> None:
    change_config(folder, rms_norm_eps=1e-3)


def one_weight_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.down_proj.weight"] *= 1.03
    save_file(weights, path, metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (without_template, "the tokenizer has lost its chat template"),
        (other_template, "the tokenizer's chat template is not the trained one's"),
        (other_special_token, "the tokenizer's special"),
        (untied, "tie_word_embeddings is False, of the trained model True"),
        (other_eps, "rms_norm_eps is 0.001, of the trained model"),
        (one_weight_off, "logits differ by"),
    ],
)
def test_a_fault_in_the_folder_is_named(tmp_path: Path, tokens: Any, fault: Callable[[Path], None], cause: str) -> None:
    base = make_base(tmp_path / "base", "llama", tokens)
    expected = observe(load(base), GATE)
    facts = tokenizer_facts(tokens)
    check_folder(base, GATE, expected, facts, torch.device("cpu"))
    fault(base)
    with pytest.raises(RunFailed, match=cause):
        check_folder(base, GATE, expected, facts, torch.device("cpu"))


def test_untied_weights_of_the_same_values_are_refused(tmp_path: Path, tokens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_base(tmp_path / "base", "llama", tokens)
    expected = observe(load(base), GATE)
    model = load(base)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    monkeypatch.setattr("train.models.load_exported", lambda folder, device: (model, tokens))
    with pytest.raises(RunFailed, match="head and embedding are two, in training they were one tensor"):
        check_folder(base, GATE, expected, tokenizer_facts(tokens), torch.device("cpu"))


def test_a_merge_of_different_architectures_names_the_tensor(tmp_path: Path, tokens: Any) -> None:
    base = make_base(tmp_path / "base", "llama", tokens)
    trained_adapter(tmp_path / "adapter", base, tokens)
    other = make_base(tmp_path / "other", "qwen3", tokens)
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(other)}))
    with pytest.raises(ConfigError, match=r"tensor \S+\.lora_[AB]\.weight of shape .* different architectures"):
        convert(tmp_path / "adapter", tmp_path / "out", merge=True, dtype_name=None)
    deep = make_base(tmp_path / "deep", "deepseek_v3", tokens)
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(deep)}))
    with pytest.raises(ConfigError, match="has no layer .* different architectures"):
        convert(tmp_path / "adapter", tmp_path / "out", merge=True, dtype_name=None)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path, tokens: Any) -> None:
    base = make_base(tmp_path / "base", "llama", tokens)
    tokens_file = base / "tokenizer.json"
    values = json.loads(tokens_file.read_text())
    added = {"content": "<|new|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    values["added_tokens"] += [{**added, "id": VOCABULARY + i, "content": f"<|new{i}|>"} for i in range(10)]
    tokens_file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="embedding has 400 rows"):
        convert(base, tmp_path / "out", merge=False, dtype_name=None)
