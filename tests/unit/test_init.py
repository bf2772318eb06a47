"""`aisc init`: a short YAML that our own checks accept; other tools' YAMLs with everything that was not carried over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.init import sequence_length
from cli.main import main
from cli.translate import translate
from cli.translate_data import DataSets, sources_of
from configs import compose
from data_pipelines.formats import FORMATS
from data_pipelines.formats.document import Chat
from tests.kills.lab import make_chats, make_tokenizer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with a tokenizer, config.json and (empty) weights; chats beside it."""
    make_tokenizer(tmp_path / "model", make_chats(tmp_path / "chats.jsonl", 50))
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 2048}))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    return tmp_path / "model"


def test_looks_at_both_and_writes_at_most_twenty_lines(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, data = model.parent / "run.yaml", model.parent / "chats.jsonl"
    assert main(["init", "--model", str(model), "--data", str(data), "--to", str(target)]) == 0
    text = target.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 20 and text.count("#") >= 10
    config = compose.load([str(target)]).config
    assert (config.model.path, config.data.train) == (str(model), str(data))
    assert config.data.sequence_length == 256 and config.objective.name == "sft"
    assert "to do" not in capsys.readouterr().out


def test_never_overwrites(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = model.parent / "run.yaml"
    target.write_text("mine")
    assert main(["init", "--model", str(model), "--data", str(model.parent / "chats.jsonl"), "--to", str(target)]) == 2
    assert target.read_text() == "mine" and "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(("longest", "length"), [(10, 256), (233, 512), (465, 512), (466, 1024), (100_000, 8192)])
def test_sequence_length_leaves_a_tenth_of_room(longest: int, length: int) -> None:
    assert sequence_length(longest) == length


LLAMA_FACTORY = """
model_name_or_path: /models/Qwen3-8B
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: identity
template: qwen3
cutoff_len: 4096
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
fp16: true
val_size: 0.1
plot_loss: true
"""
AXOLOTL = """
base_model: /models/Llama-3.1-8B
adapter: lora
lora_r: 32
lora_target_linear: true
datasets:
  - path: /data/a.jsonl
    type: chat_template
    split: train
sequence_len: 2048
sample_packing: true
micro_batch_size: 4
gradient_accumulation_steps: 2
max_steps: 500
optimizer: adamw_torch
lr_scheduler: polynomial
train_on_inputs: true
bf16: auto
"""


def moved_in(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    (tmp_path / "theirs.yaml").write_text(text)
    target = tmp_path / "ours.yaml"
    assert main(["init", "--from", str(tmp_path / "theirs.yaml"), "--to", str(target)]) == 0
    return target, capsys.readouterr().out


def test_from_llama_factory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, said = moved_in(tmp_path, LLAMA_FACTORY, capsys)
    config = compose.load([str(target)]).config
    assert config.adapter.name == "lora" and config.adapter.rank == 8 and config.adapter.target_modules == ["all-linear"]
    assert config.training.global_batch_size == 16 and config.training.duration == "3 epochs"
    assert config.optimizer.lr == 1e-4 and config.lr_scheduler.warmup == "10%" and config.data.validation == "10%"
    for line in ("left    template: no counterpart", "left    plot_loss: no counterpart", "left    fp16: true: we have bf16"):
        assert line in said
    assert "left    dataset: identity: names of dataset_info.json" in said and "to do   data.train: missing" in said


def test_from_axolotl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, said = moved_in(tmp_path, AXOLOTL, capsys)
    config = compose.load([str(target)]).config
    assert config.data.train == "/data/a.jsonl" and config.data.packing and config.training.duration == "500 steps"
    assert "left    lr_scheduler: polynomial: we have constant, cosine, linear, wsd" in said
    assert "left    train_on_inputs: only the assistant's tokens are learned" in said
    assert "left    datasets[0].split" in said


def test_every_key_is_carried_or_listed() -> None:
    values = {"model_name_or_path": "/m", "cutoff_len": "many", "unheard_of": 1, "seed": 3, "pref_betta": 0.2}
    found = translate(values)
    assert found.values == {"model.path": "/m", "training.seed": 3}
    assert [key for key, _ in found.left] == ["cutoff_len", "unheard_of", "pref_betta"]
    assert found.left[1:] == [("unheard_of", "no counterpart"), ("pref_betta", "no counterpart; did you mean pref_beta?")]


ALIGNED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("stage: dpo", {"name": "dpo"}, []),
    (
        "stage: dpo\npref_loss: sigmoid\npref_beta: 0.3\npref_ftx: 0.5\ndpo_label_smoothing: 0.1\nref_model: /models/a",
        {"name": "dpo", "beta": 0.3, "nll_weight": 0.5, "label_smoothing": 0.1, "reference": "/models/a"},
        [],
    ),
    ("stage: dpo\npref_loss: ipo", {"name": "dpo", "loss": "ipo", "length_normalised": True}, []),
    ("stage: dpo\npref_loss: hinge\ndpo_label_smoothing: 0.1", {"name": "dpo", "loss": "hinge"}, ["dpo_label_smoothing"]),
    ("stage: dpo\npref_loss: orpo\npref_beta: 0.2\npref_ftx: 1.0", {"name": "orpo", "odds_weight": 0.2}, ["pref_ftx"]),
    # Their defaults are not ours: beta 0.1, and gamma 0.5, which is 5 times beta.
    ("stage: dpo\npref_loss: simpo", {"name": "simpo", "beta": 0.1, "gamma_beta_ratio": 5.0}, []),
    ("stage: dpo\npref_loss: simpo\npref_beta: 2\nsimpo_gamma: 1", {"name": "simpo", "beta": 2.0, "gamma_beta_ratio": 0.5}, []),
    ("stage: dpo\npref_loss: kto_pair", {"name": "kto"}, ["pref_loss"]),
    (
        "stage: kto\nkto_chosen_weight: 1.0\nkto_rejected_weight: 1.2\npref_ftx: 0.1\npref_bco_weight: 0.0",
        {"name": "kto", "desirable_weight": 1.0, "undesirable_weight": 1.2},
        ["pref_ftx"],
    ),
    ("stage: rm\nfinetuning_type: full\npref_beta: 0.2", {"name": "reward"}, ["pref_beta"]),
    ("stage: ppo\npref_beta: 0.2", {}, ["stage", "pref_beta"]),
    ("stage: dpo\npref_loss: exo", {"name": "dpo"}, ["pref_loss"]),
]


@pytest.mark.parametrize(("text", "expected", "left"), ALIGNED)
def test_stages_of_alignment(text: str, expected: dict[str, Any], left: list[str]) -> None:
    found = translate({"model_name_or_path": "/m", **yaml.safe_load(text)})
    theirs = {key.partition(".")[2]: value for key, value in found.values.items() if key.startswith("objective.")}
    assert theirs == pytest.approx(expected) and [key for key, _ in found.left] == left
    words = [f"objective.{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in theirs.items()]
    assert compose.load(words).config.objective.problems() == []


def test_data_sets_of_alignment_by_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    pairs = {"instruction": "1+1?", "chosen": "2", "rejected": "3"}
    marked = {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}], "good": True}
    (tmp_path / "data" / "pairs.json").write_text(json.dumps([pairs]))
    (tmp_path / "data" / "marked.jsonl").write_text(json.dumps(marked))
    info = {
        "my-pairs": {
            "file_name": "pairs.json",
            "ranking": True,
            "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
        },
        "marked": {
            "file_name": "marked.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "kto_tag": "good"},
            "tags": {"user_tag": "human", "assistant_tag": "bot"},
            "split": "train",
        },
    }
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    start = "model_name_or_path: /models/Qwen3-8B\nfinetuning_type: full\n"
    target, said = moved_in(tmp_path, start + "stage: dpo\ndataset: my-pairs, nowhere\n", capsys)
    source = compose.load([str(target)]).config.data.sources["my_pairs"]
    assert (source.path, source.format, source.columns) == (str(tmp_path / "data" / "pairs.json"), "preference", {"prompt": "instruction"})
    assert "left    dataset: nowhere: names of dataset_info.json" in said and "where input has text, join it" in said
    assert documents_of(pairs, "preference", source.columns) == ["2", "3"]
    target.unlink()
    target, said = moved_in(tmp_path, start + "stage: kto\ndataset: marked\n", capsys)
    source = compose.load([str(target)]).config.data.sources["marked"]
    assert (source.format, source.columns) == ("kto", {"label": "good"})
    assert "left    dataset marked: tags.assistant_tag: bot" in said and "left    dataset marked: split: no counterpart" in said
    assert documents_of(marked, "kto", source.columns) == ["2"]


def test_every_data_set_is_a_source_or_listed() -> None:
    entries = {name: {"file_name": f"{name}.json"} for name in ("my-pairs", "my_pairs")} | {"odd": {"file_name": "odd.json", "columns": ["text"]}}
    found, left = sources_of(["my-pairs", "my_pairs", "odd"], DataSets(Path("data"), entries))
    assert [source["path"] for source in found.values()] == ["data/my-pairs.json", "data/my_pairs.json"]
    assert left == [("dataset", "odd: columns or tags of dataset_info.json are no mapping; give the file itself: data.train=PATH")]


def documents_of(row: dict[str, Any], form: str, columns: dict[str, str]) -> list[str]:
    """The last turn of each document that a row gives, read with these columns."""
    reader = FORMATS[form]
    found = reader.documents(row, {**reader.FIELDS, **columns})
    return [document.messages[-1]["content"] for document in found if isinstance(document, Chat)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not YAML"), ("learning_rate: 1", "neither LLaMA-Factory's"), ("- 1", "neither LLaMA-Factory's")],
)
def test_what_is_neither_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "theirs.yaml").write_text(text)
    assert main(["init", "--from", str(tmp_path / "theirs.yaml"), "--to", str(tmp_path / "ours.yaml")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "ours.yaml").exists()


def test_a_place_that_may_not_be_written_is_one_sentence(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody may make a file in /sys, root neither."""
    given = ["--model", str(model), "--data", str(model.parent / "chats.jsonl")]
    assert main(["init", *given, "--to", "/sys/run.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: /sys: ") and "expected a place that you may read and write" in said
