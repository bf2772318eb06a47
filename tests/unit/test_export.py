"""Exports streamed from a checkpoint, against what transformers and peft write for the same weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.errors import ConfigError
from configs.runfolder import RunFolder
from configs.schema import AdapterSection, DataSection
from train.adapters import attach
from train.checkpoint import CheckpointReader, start_attempt
from train.checkpoint_reading import checkpoint_of
from train.checkpointer import Checkpointer
from train.distributed import Context
from train.export import check_export, export_model
from train.export_weights import plan_weights, write_weights
from train.parity import fixed_gate, logits_of
from train.shards import LocalShard, flat_shards

CONTEXT = Context(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {**SIZES, "num_key_value_heads": 1, "head_dim": 16},
    "deepseek_v3": {
        **SIZES,
        **{"moe_intermediate_size": 16, "num_key_value_heads": 2, "n_routed_experts": 4, "n_group": 2, "topk_group": 1},
        **{"num_experts_per_tok": 2, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 8},
        **{"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_shared_experts": 1},
    },
}


@pytest.fixture(autouse=True)
def own_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


def built(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPES[kind]))
    for buffer in model.buffers():
        if buffer.is_floating_point() and not buffer.any():
            buffer.normal_()  # a router's bias: part of the weights, and no parameter
    return model.eval()


def checkpoint_reader(tmp_path: Path, model: nn.Module) -> CheckpointReader:
    """Saves what is trained, each tensor in two flat ranges as sharded engines do, and opens the checkpoint."""
    run = RunFolder(tmp_path / "run")
    start = start_attempt(run, {}, CONTEXT)
    held: dict[str, list[LocalShard]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            flat, shape = parameter.detach().reshape(-1), tuple(parameter.shape)
            cut = max(1, len(flat) // 3 - 1)
            held[f"model.{name}"] = [*flat_shards(flat[:cut], shape, 0), *flat_shards(flat[cut:], shape, cut)]
    checkpointer = Checkpointer(start.attempt, run, CONTEXT, keep=1)
    checkpointer.save(1, held, {})
    checkpointer.wait()
    return CheckpointReader(checkpoint_of(run, 1), ("model.",))


def forget(model: nn.Module) -> None:
    """Overwrites what is trained, so that it can only come from the checkpoint."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.fill_(7.0)


class Tokens:
    """Stands for a tokenizer, which is saved by itself."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", list(SHAPES))
def test_the_folder_is_what_transformers_writes(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    from transformers import AutoModelForCausalLM

    model = built(kind)
    reader = checkpoint_reader(tmp_path, model)
    model.to(dtype).save_pretrained(tmp_path / "expected", max_shard_size="5GB")
    model.float()
    forget(model)
    exported = export_model(
        tmp_path / "ours", model, Tokens(), DataSection(), reader=reader, merge=False, dtype=dtype, card="a card"
    )
    assert exported.kind == "full"
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes(), name
    logits = [
        logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto").eval(), fixed_gate(model.config.vocab_size))[0]
        for name in ("ours", "expected")
    ]
    assert torch.equal(*logits)


@pytest.mark.parametrize("file_bytes", [30_000, 2_000])
@pytest.mark.parametrize("kind", list(SHAPES))
def test_large_weights_go_into_several_files(tmp_path: Path, kind: str, file_bytes: int) -> None:
    from transformers import AutoModelForCausalLM

    model = built(kind)
    reader = checkpoint_reader(tmp_path, model)
    model.save_pretrained(tmp_path / "whole", max_shard_size="5GB")
    model.save_pretrained(tmp_path / "expected", max_shard_size=file_bytes)
    forget(model)
    (tmp_path / "ours").mkdir()
    model.config.save_pretrained(tmp_path / "ours")
    plan = plan_weights(model, torch.float32, file_bytes=file_bytes)
    write_weights(tmp_path / "ours", plan, model, reader, torch.float32)
    files = sorted(path.name for path in (tmp_path / "ours").glob("model*"))
    assert len(files) > 2 and plan.nbytes < sum((tmp_path / "ours" / name).stat().st_size for name in files)
    if kind != "deepseek_v3":  # transformers keeps the experts of a layer in one file, whatever its size
        for name in files:
            assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes(), name
    merged: dict[str, Tensor] = {}
    for name in files[:-1]:
        merged |= load_file(tmp_path / "ours" / name)
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)
    AutoModelForCausalLM.from_pretrained(tmp_path / "ours")


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_is_what_peft_writes(tmp_path: Path, dora: bool) -> None:
    section = AdapterSection(name="lora", rank=2, dora=dora, modules_to_save=["lm_head"])
    model = attach(built("qwen3"), section, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    reader = checkpoint_reader(tmp_path, model)
    model.save_pretrained(tmp_path / "expected")  # type: ignore[operator]
    forget(model)
    exported = export_model(
        tmp_path / "ours", model, Tokens(), DataSection(), reader=reader, merge=False, dtype=torch.float32, card="a card"
    )
    assert exported.kind == "adapter"
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes(), name


def test_a_plan_knows_the_size_before_the_first_step() -> None:
    model = built("deepseek_v3")
    size = sum(value.numel() for value in model.state_dict().values())
    assert check_export(model, merge=False, is_sharded=True, dtype=torch.bfloat16) == 2 * size
    assert check_export(model.to("meta"), merge=False, is_sharded=True, dtype=torch.float32) == 4 * size
    adapted = attach(built("qwen3"), AdapterSection(name="lora", rank=2), seed=1)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert check_export(adapted, merge=False, is_sharded=True, dtype=torch.bfloat16) == 4 * trained
    with pytest.raises(ConfigError, match="aisc export RUN --merge"):
        check_export(adapted, merge=True, is_sharded=True, dtype=torch.float32)


def test_a_weight_whose_original_form_needs_another_is_refused_before_the_first_step() -> None:
    from transformers.core_model_loading import Chunk, WeightConverter

    model = built("llama")
    # As if files held gate and up as one tensor, which is taken apart when it is read.
    model._weight_conversions = [
        WeightConverter(
            ["mlp.gate_up_proj.weight"], ["mlp.gate_proj.weight", "mlp.up_proj.weight"], operations=[Chunk(dim=0)]
        )
    ]
    with pytest.raises(ConfigError, match="gate.* cannot be written one at a time"):
        plan_weights(model, torch.float32)


def test_reading_never_takes_more_than_one_weight_at_a_time(tmp_path: Path) -> None:
    model = built("deepseek_v3")
    reader = Watched(checkpoint_reader(tmp_path, model))
    plan = plan_weights(model, torch.float32)
    write_weights(tmp_path, plan, model, reader, torch.float32)
    assert sorted(reader.read_names) == sorted(reader.names()), "each weight once"
    assert reader.most_alive <= 2


class Watched:
    """A reader that counts how many of the tensors it gave away are still held by somebody."""

    def __init__(self, reader: CheckpointReader) -> None:
        import weakref

        self._reader = reader
        self._alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self.read_names: list[str] = []
        self.most_alive = 0

    def names(self) -> Collection[str]:
        return self._reader.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._reader.shape(name)

    def read(self, name: str) -> Tensor:
        value = self._reader.read(name)
        self.read_names.append(name)
        self._alive.add(value)
        self.most_alive = max(self.most_alive, len(self._alive))
        return value

    def read_flat(self, name: str, start: int, stop: int) -> Tensor:
        return self._reader.read_flat(name, start, stop)
