"""What `aisc train` says to a configuration that cannot be used: exit code 2, every problem, word for word.

Each case is what a person types or writes and the whole answer. The base command is right, so nothing else is said.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cli.main import main
from tests.kills.lab import make_chats, make_tokenizer

BASE = ("model=tiny_llama", "model.tokenizer=tokenizer", "data=chats.jsonl")
DURATION = "expected a number and a unit: `100 steps`, `3 epochs`, `2e9 tokens` or `10%`"
Refuse = Callable[[Sequence[str]], list[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 chats and a tokenizer of 400 tokens."""
    folder = tmp_path_factory.mktemp("configs")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 40))
    return folder


@pytest.fixture
def refuse(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs `aisc train ... --dry-run` in that folder and returns the lines of its refusal; no run folder is left."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("AISC_RUNS", "AISC_STORES"):
        monkeypatch.delenv(name, raising=False)

    def run(arguments: Sequence[str]) -> list[str]:
        code = main(["train", *arguments, "--dry-run"])
        said = capsys.readouterr()
        assert (code, said.out) == (2, "")
        assert said.err.startswith("error: ")
        assert not (place / "runs").exists()
        return [line.removeprefix("  ") for line in said.err.removeprefix("error: ").splitlines()]

    return run


COMMAND_LINES: list[tuple[str, list[str]]] = [
    # Keys that do not exist.
    ("optimizer.lrr=1e-4", ["optimizer.lrr: no such key; did you mean optimizer.lr?"]),
    ("optimiser.lr=1e-4", ["optimiser.lr: no such key; did you mean optimizer.lr?"]),
    ("lr=1e-4", ["lr: no such key; did you mean optimizer.lr?"]),
    ("sequence_length=64", ["sequence_length: no such key; did you mean data.sequence_length?"]),
    ("optimzer=adamw", ["optimzer: no such key; did you mean optimizer?"]),
    ("data.trian=a.jsonl", ["data.trian: no such key; did you mean data.train?"]),
    ("model.pth=/models/a", ["model.pth: no such key; did you mean model.path?"]),
    ("cluster.node=2", ["cluster.node: no such key; did you mean cluster.nodes?"]),
    ("zzz=1", ["zzz: no such key; all keys: aisc train --help all"]),
    ("training.seed.x=3", ["training.seed.x: no such key; training.seed is a value, not a section"]),
    ("training..seed=3", ["training..seed: no such key; did you mean training.seed?"]),
    (
        "data.sources.a.pth=b.jsonl",
        ["data.sources.a.pth: no such key; did you mean path?", "data.train and data.sources: give one of them"],
    ),
    # Words that are no assignment.
    ("=3", ["=3: expected key=value"]),
    ("seed", ["seed: expected RUN.yaml or key=value"]),
    ("--drry-run", ["--drry-run: no such option; did you mean --dry-run?"]),
    ("+training.foo=1", ["+training.foo=1: `+` is not used here; every key exists already: training.foo=VALUE"]),
    ("++training.seed=1", ["++training.seed=1: `+` is not used here; every key exists already: training.seed=VALUE"]),
    ("~training.seed", ["~training.seed: `~` is not used here; every key exists already: training.seed=VALUE"]),
    # Values of another type.
    ("training.seed=one", ["training.seed=one: expected a whole number"]),
    ("training.global_batch_size=3.5", ["training.global_batch_size=3.5: expected a whole number"]),
    ("training.global_batch_size=auto", ["training.global_batch_size=auto: expected a whole number"]),
    ("adapter.alpha=auto", ["adapter.alpha=auto: expected a number"]),
    ("optimizer.lr=1e-4x", ["optimizer.lr=1e-4x: expected a number or auto"]),
    ("optimizer.lr=automatic", ["optimizer.lr=automatic: expected a number or auto"]),
    ("optimizer.lr=", ["optimizer.lr=: expected a number or auto"]),
    ("optimizer.lr=nan", ["optimizer.lr=nan: expected a number or auto"]),
    ("optimizer.lr=null", ["optimizer.lr=null: expected a number or auto, not null"]),
    ("engine.processes=many", ["engine.processes=many: expected a whole number or auto"]),
    ("data.packing=yes", ["data.packing=yes: expected true or false"]),
    ("data.packing=1", ["data.packing=1: expected true or false"]),
    ("model.path=[a, b]", ['model.path=["a", "b"]: expected text or null']),
    ("adapter.target_modules={q: 1}", ['adapter.target_modules={"q": 1}: expected text']),
    ("data.template_args=thinking", ["data.template_args=thinking: expected a mapping {key: value}"]),
    ("data.sources=a.jsonl", ["data.sources=a.jsonl: expected a mapping NAME: {path: ...}"]),
    ("training=[1, 2]", ["training=[1, 2]: is a section; expected training.KEY=VALUE"]),
    (
        "data.template_args={_target_: os.system}",
        ['data.template_args={"_target_": "os.system"}: _target_ is not allowed: a configuration holds values, not code'],
    ),
    (
        "data.template_args._target_=os.system",
        ["data.template_args._target_=os.system: _target_ is not allowed: a configuration holds values, not code"],
    ),
    # Values that are none of the legal ones.
    ("optimizer=1e-4", ["optimizer.name=1e-4: expected adamw | sgd"]),
    ("adapter=qlora", ["adapter.name=qlora: expected none | lora; did you mean lora?"]),
    (
        "engine=zero3_ofload",
        [
            "engine=zero3_ofload: expected auto | ddp | zero1 | zero2 | zero3 | fsdp2, or a preset: fsdp2_offload, hsdp, "
            "zero2_offload, zero3_offload; did you mean zero3_offload?"
        ],
    ),
    (
        "engine.name=zero4",
        ["engine.name=zero4: expected auto | ddp | zero1 | zero2 | zero3 | fsdp2; did you mean zero3?"],
    ),
    (
        "engine.preset=hsdpp",
        ["engine.preset=hsdpp: no such preset; did you mean hsdp?"],
    ),
    ("training.gradient_checkpointing=true", ["training.gradient_checkpointing=true: expected none | selective | full"]),
    ("training.precision=bf32", ["training.precision=bf32: expected auto | fp32 | bf16 | fp16; did you mean fp32?"]),
    ("engine.shard_size=node", ["engine.shard_size=node: expected a whole number or null"]),
    ("engine.deepspeed=[1]", ["engine.deepspeed=[1]: expected a mapping or text or null"]),
    ("objective=ppo", ["objective.name=ppo: expected sft | cpt | dpo | kto | orpo | simpo | reward; did you mean dpo?"]),
    (
        "lr_scheduler=cosin",
        ["lr_scheduler.name=cosin: expected constant | linear | cosine | wsd; did you mean cosine?"],
    ),
    ("data.overlength=trunc", ["data.overlength=trunc: expected error | truncate | drop | split; did you mean truncate?"]),
    # Ranges.
    ("optimizer.lr=-1", ["optimizer.lr=-1.0: expected auto, or more than 0"]),
    ("optimizer.beta2=1", ["optimizer.beta2=1.0: expected 0 <= beta2 < 1"]),
    ("adapter.rank=0", ["adapter.rank=0: expected 1 or more"]),
    ("training.global_batch_size=0", ["training.global_batch_size=0: expected 1 or more"]),
    ("data.sequence_length=4", ["data.sequence_length=4: expected 8 or more"]),
    ("data.max_bad_rows=-1", ["data.max_bad_rows=-1: expected 0 or more"]),
    ("checkpoint.keep=0", ["checkpoint.keep=0: expected 1 or more"]),
    ("lr_scheduler.min_lr_ratio=1.5", ["lr_scheduler.min_lr_ratio=1.5: expected 0 to 1"]),
    ("data.validation=150%", ["data.validation=150%: expected a share such as 5%, a path, or none"]),
    # Lengths.
    ("training=12:30", [f"training.duration=12:30: {DURATION}"]),
    ("training.duration=5 parsecs", [f"training.duration=5 parsecs: {DURATION}"]),
    ("training.duration=-3 epochs", [f"training.duration=-3 epochs: {DURATION}"]),
    ("training.duration=0 epochs", ["training.duration=0 epochs: expected more than 0"]),
    ("training.duration=10%", ["training.duration=10%: expected steps or epochs or tokens, not percent"]),
    ("lr_scheduler.warmup=2 epochs", ["lr_scheduler.warmup=2 epochs: expected steps or percent, not epochs"]),
    ("checkpoint.every=1e9 tokens", ["checkpoint.every=1e9 tokens: expected steps or percent, not tokens"]),
    # Rules over several sections, or with facts of model, files and machine.
    (
        "data.sequence_length=4096",
        ["data.sequence_length=4096: the model has 2048 positions; data.sequence_length=2048 is the most"],
    ),
    ("adapter.rank=8", ["adapter.rank=8: full fine-tuning has no adapter; adapter=lora uses it"]),
    (
        "training.micro_batch_size=64",
        ["training.micro_batch_size=64: more than training.global_batch_size=32; expected at most that"],
    ),
    ("engine.processes=0", ["engine.processes=0: expected auto, or 1 or more"]),
    ("engine.backend=nccl", ["engine.backend=nccl: this machine shows no GPU; expected auto or gloo"]),
    ("model.arch={hidden_size: 8}", ["model.arch: model_type is missing; random weights need the values of a config.json"]),
    ("model.tokenizer=nowhere", ["model.tokenizer=nowhere: no such folder"]),
    ("data.chat_template=no.jinja", ["data.chat_template=no.jinja: no such file; give a UTF-8 Jinja file"]),
    ("data.train=gone.jsonl", ["data.train=gone.jsonl: no such file or folder"]),
    ("data.train=gone/*.jsonl", ["data.train=gone/*.jsonl: no file matches"]),
    ("data.train=hub:some/name", ["data.train=hub:some/name: fetching from the hub is off; data.online=true allows it"]),
    ("data.validation=gone.jsonl", ["data.validation=gone.jsonl: no such file or folder"]),
    ("run.name=a/b", ["run.name=a/b: expected a name without /; run.dir=FOLDER says where runs go"]),
    # A file stands where the folder would be: this holds for root too, whom no permission stops.
    ("run.dir=chats.jsonl/runs", ["run.dir=chats.jsonl/runs: {here}/chats.jsonl is not a folder"]),
    ("data.store=chats.jsonl/s", ["data.store=chats.jsonl/s: {here}/chats.jsonl is not a folder"]),
]


# Engine, adapter, precision, offload, ranks: each alone is legal, together they are not.
ENGINES: list[tuple[str, list[str]]] = [
    (
        "engine=ddp engine.offload_optimizer=true",
        [
            "engine.offload_optimizer=true: ddp keeps the optimizer beside the weights; expected engine.name=zero1, zero2 or "
            "zero3, or fsdp2_offload"
        ],
    ),
    (
        "engine=ddp engine.offload_parameters=true",
        ["engine.offload_parameters=true: ddp keeps whole weights on the device; expected engine.name=zero3 or fsdp2"],
    ),
    (
        "engine=zero2 engine.offload_parameters=true",
        [
            "engine.offload_parameters=true: zero2 keeps whole weights on the device (its optimizer alone can go there: "
            "engine.offload_optimizer=true); expected engine.name=zero3 or fsdp2"
        ],
    ),
    (
        "engine=zero3 engine.offload_parameters=true",
        [
            "engine.offload_parameters=true: zero3 moves weights to host memory only with their optimizer; expected "
            "engine.offload_optimizer=true too (engine=zero3_offload)"
        ],
    ),
    (
        "engine=fsdp2 engine.offload_optimizer=true",
        [
            "engine.offload_optimizer=true: fsdp2 offloads weights, gradients and optimizer together; expected "
            "engine.offload_parameters=true too (engine=fsdp2_offload)"
        ],
    ),
    (
        "engine=fsdp2 engine.shard_size=3 engine.processes=4",
        ["engine.shard_size=3: does not divide 4 ranks; expected 2 or 4, or null"],
    ),
    ("engine=hsdp engine.processes=12", ["engine.shard_size=8: does not divide 12 ranks; expected 4 or 6 or 12, or null"]),
    ("engine=hsdp", ["engine.shard_size=8: does not divide 1 rank; expected null"]),
    (
        "engine=zero3 engine.shard_size=2 engine.processes=4",
        ["engine.shard_size=2: only fsdp2 makes groups of ranks; expected engine.name=fsdp2, or null"],
    ),
    (
        "engine=fsdp2 engine.shard_size=1",
        ["engine.shard_size=1: expected 2 or more; engine=ddp keeps a whole copy on every rank"],
    ),
    (
        "engine=zero1 training.precision=fp16",
        [
            "training.precision=fp16: zero1 keeps its weights in fp16, and a CPU has no fp16 arithmetic; expected fp32 or "
            "bf16, or engine.name=ddp or fsdp2"
        ],
    ),
    (
        "training.precision=fp16 model.dtype=bfloat16",
        ["model.dtype=bfloat16: mixes two 16-bit types with training.precision=fp16; expected auto or float32"],
    ),
    (
        "engine=zero2 training.precision=bf16 model.dtype=float32",
        [
            "model.dtype=float32: zero2 with training.precision=bf16 keeps bfloat16 weights beside float32 masters; expected "
            "auto, or training.precision=fp32"
        ],
    ),
    (
        "engine=zero2 training.precision=fp32 model.dtype=bfloat16",
        ["model.dtype=bfloat16: zero2 with training.precision=fp32 keeps float32 weights; expected auto or float32"],
    ),
    ("training.tf32=true", ["training.tf32=true: TF32 is arithmetic of GPUs, and this machine shows none; expected false"]),
    (
        "engine=zero3 adapter=lora adapter.dora=true",
        [
            "adapter.dora=true: it needs the norm of whole weights, and zero3 holds parts of them; expected "
            "adapter.dora=false, or engine.name=ddp, zero1 or zero2"
        ],
    ),
    (
        "engine=zero3 training.gradient_checkpointing=selective",
        [
            "training.gradient_checkpointing=selective: zero3 gathers weights in another order when it recomputes, and "
            "kept results would be taken for others; expected full or none, or engine.name=fsdp2"
        ],
    ),
    (
        "engine=fsdp2 adapter=lora adapter.dora=true",
        [
            "adapter.dora=true: it needs the norm of whole weights, and fsdp2 holds parts of them; expected "
            "adapter.dora=false, or engine.name=ddp, zero1 or zero2"
        ],
    ),
    ("model.router_balance=1e-4", ["model.router_balance=0.0001: this model has no routed experts; expected 0"]),
    ("model.router_balance=-1", ["model.router_balance=-1.0: expected 0 or more"]),
    (
        "engine=fsdp2 engine.deepspeed.bf16.enabled=true",
        [
            "engine.deepspeed: engine.name=fsdp2 does not run DeepSpeed; expected engine.name=zero1, zero2 or zero3, or "
            "zero_optimization.stage in it with engine.name=auto"
        ],
    ),
    (
        "engine=zero2 engine.deepspeed.zero_optimization.overlap_com=true",
        ["engine.deepspeed.zero_optimization.overlap_com: no such key of DeepSpeed 0.19.8; did you mean overlap_comm?"],
    ),
    (
        "engine=zero2 engine.deepspeed=gone.json",
        ["engine.deepspeed=gone.json: no such file; give a JSON file or a mapping of DeepSpeed's settings"],
    ),
    (
        "engine=zero2 engine.deepspeed=",
        ["engine.deepspeed=: no such file; give a JSON file or a mapping of DeepSpeed's settings"],
    ),
    (
        "engine=zero2 engine.deepspeed.optimizer.type=Lamb",
        [
            "engine.deepspeed.optimizer.type=Lamb: optimizer.name=adamw is what steps; remove the block optimizer, or write "
            "the optimizer section to say the same"
        ],
    ),
    (
        "engine=zero3 engine.shard_size=2 engine.processes=4 training.precision=fp16 adapter=lora adapter.dora=true training.tf32=true",
        [
            "engine.shard_size=2: only fsdp2 makes groups of ranks; expected engine.name=fsdp2, or null",
            "training.precision=fp16: zero3 keeps its weights in fp16, and a CPU has no fp16 arithmetic; expected fp32 or "
            "bf16, or engine.name=ddp or fsdp2",
            "training.tf32=true: TF32 is arithmetic of GPUs, and this machine shows none; expected false",
            "adapter.dora=true: it needs the norm of whole weights, and zero3 holds parts of them; expected "
            "adapter.dora=false, or engine.name=ddp, zero1 or zero2",
        ],
    ),
]


@pytest.mark.parametrize(("arguments", "expected"), ENGINES, ids=[case[0] for case in ENGINES])
def test_bad_engine(arguments: str, expected: list[str], refuse: Refuse) -> None:
    assert refuse([*BASE, *arguments.split()]) == expected


@pytest.mark.parametrize(("argument", "expected"), COMMAND_LINES, ids=[case[0] for case in COMMAND_LINES])
def test_bad_command_line(argument: str, expected: list[str], refuse: Refuse, place: Path) -> None:
    assert refuse([*BASE, argument]) == [line.replace("{here}", str(place)) for line in expected]


WHOLE_COMMANDS: list[tuple[str, list[str]]] = [
    (
        "",
        [
            "model.path: missing; give a Hugging Face model folder: model.path=FOLDER",
            "data.train: missing; give the training file: data=FILE",
        ],
    ),
    ("model=tiny_llama model.tokenizer=tokenizer", ["data.train: missing; give the training file: data=FILE"]),
    (
        "model=tiny_llama data=chats.jsonl",
        ["model.tokenizer: missing; give the folder of a tokenizer, as model.path is not set"],
    ),
    (
        "model=qwen3_8b data=chats.jsonl",
        ["model.path: a preset's shape without weights; give a Hugging Face model folder: model.path=FOLDER"],
    ),
    (
        "model=qwen3_8bb data=chats.jsonl",
        ["model.path=qwen3_8bb: no such folder, and no preset of that name; did you mean qwen3_8b?"],
    ),
    ("model.preset=qwen3_8bb data=chats.jsonl", ["model.preset=qwen3_8bb: no such preset; did you mean qwen3_8b?"]),
    (
        "model=/models/none data=chats.jsonl",
        ["model.path=/models/none: no such folder, and no preset of that name; expected a Hugging Face model folder"],
    ),
    ("experiment=demoo", ["experiment=demoo: no such experiment; did you mean demo?"]),
    ("experiment=gone.yaml", ["experiment=gone.yaml: no such experiment; there are: demo, hkgai_chain, hkgai_chain_deepseek, oncology_chain, oncology_chain_qwen3, oncology_sft"]),
    ("gone.yaml", ["gone.yaml: no such file"]),
    ("gone.yaml two.yaml", ["two.yaml: a second RUN.yaml; expected one", "gone.yaml: no such file"]),
]


@pytest.mark.parametrize(("command", "expected"), WHOLE_COMMANDS, ids=[case[0] or "nothing" for case in WHOLE_COMMANDS])
def test_bad_whole_command(command: str, expected: list[str], refuse: Refuse) -> None:
    assert refuse(command.split()) == expected


YAMLS: dict[str, tuple[str | bytes, list[str]]] = {
    "a key given twice": ("training:\n  seed: 1\n  seed: 2\n", ["run.yaml:3: not YAML: found duplicate key seed"]),
    "a bracket not closed": ("training: {seed: 1\nrun: 3\n", ["run.yaml:2: not YAML: expected ',' or '}', but got ':'"]),
    "a tab": ("training:\n\tseed: 1\n", ["run.yaml:2: not YAML: found character '\\t' that cannot start any token"]),
    "a list": ("- training\n- data\n", ["run.yaml: expected sections (model:, data:, ...) at the top level"]),
    "a sentence": ("train my model please", ["run.yaml: expected sections (model:, data:, ...) at the top level"]),
    "not UTF-8": (b"run: {name: \xe9t\xe9}\n", ["run.yaml: not UTF-8, byte 13; save the file as UTF-8"]),
    "an unknown name in ${}": ("run: {name: '${whoever}'}\n", ["run.yaml: Interpolation key 'whoever' not found"]),
    "three mistakes, each with its line": (
        "training:\n  seed: one\nmodle: x\ndata:\n  trian: a\n",
        [
            "run.yaml:2: training.seed=one: expected a whole number",
            "run.yaml:3: modle: no such key; did you mean model?",
            "run.yaml:5: data.trian: no such key; did you mean data.train?",
        ],
    ),
    "a text where a number belongs": (
        "optimizer: {lr: 1e-4 or so}\n",
        ["run.yaml:1: optimizer.lr=1e-4 or so: expected a number or auto"],
    ),
    "a section that is empty": ("training:\n", ["run.yaml:1: training=null: is a section; expected training.KEY=VALUE"]),
    "a section that is a list": ("data: [a, b]\n", ['run.yaml:1: data=["a", "b"]: is a section; expected data.KEY=VALUE']),
    # YAML 1.1 reads it as 12 * 60 + 30: the run would have trained 750 steps.
    "a number of base 60": ("training: {duration: 12:30}\n", [f"training.duration=12:30: {DURATION}"]),
    "a seed of base 60": ("training: {seed: 1:00}\n", ["run.yaml:1: training.seed=1:00: expected a whole number"]),
    "Hydra's own words": ("defaults: [a]\n", ["run.yaml:1: defaults: no such key; all keys: aisc train --help all"]),
    "an experiment that is not there": ("experiment: demoo\n", ["experiment=demoo: no such experiment; did you mean demo?"]),
    "two sources, both wrong": (
        "data:\n  train: null\n  sources:\n    a: {path: gone.jsonl, weight: heavy}\n    b: {pth: x}\n",
        [
            "run.yaml:3: data.sources.a.weight=heavy: expected a number",
            "run.yaml:3: data.sources.b.pth: no such key; did you mean path?",
        ],
    ),
}


@pytest.mark.parametrize("name", YAMLS)
def test_bad_yaml(name: str, refuse: Refuse, place: Path) -> None:
    content, expected = YAMLS[name]
    (place / "run.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    base = [word for word in BASE if not (name.startswith("two sources") and word.startswith("data="))]
    assert refuse(["run.yaml", *base]) == expected


def test_a_folder_named_like_a_yaml(refuse: Refuse, place: Path) -> None:
    (place / "folder.yaml").mkdir()
    assert refuse(["folder.yaml"]) == ["folder.yaml: cannot be read (Is a directory)"]


def safetensors(values: int, *, cut: int = 0) -> bytes:
    """Returns a safetensors file of one tensor, without its last `cut` bytes."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(4 * values)
    return content[: len(content) - cut]


CONFIG = b'{"model_type": "llama", "max_position_embeddings": 4096}'
MODELS: dict[str, tuple[dict[str, bytes], list[str]]] = {
    "an empty folder": ({}, ["model.path=m: no config.json there; expected a Hugging Face model folder"]),
    "no weights": ({"config.json": CONFIG}, ["model.path=m: no weights (*.safetensors) there"]),
    "only pickles": (
        {"config.json": CONFIG, "pytorch_model.bin": b"x"},
        [
            "model.path=m: weights only in pickle files (pytorch_model.bin), which can run code when read; "
            "convert them to safetensors first"
        ],
    ),
    "a config.json cut off": (
        {"config.json": CONFIG[:9], "model.safetensors": safetensors(2)},
        ["model.path=m: its config.json cannot be read; copy it again"],
    ),
    "code of its own": (
        {"config.json": b'{"auto_map": {"AutoModel": "x.Y"}}', "model.safetensors": safetensors(2)},
        ["model.path=m: needs code from its folder (auto_map), which is never run"],
    ),
    "not safetensors": (
        {"config.json": CONFIG, "model.safetensors": b"<html>"},
        ["model.path=m: model.safetensors is no safetensors file; copy it again"],
    ),
    "a download cut off": (
        {"config.json": CONFIG, "model.safetensors": safetensors(1000, cut=500)},
        ["model.path=m: model.safetensors has 3,575 bytes, its header says 4,075; copy it again"],
    ),
    "a shard missing": (
        {
            "config.json": CONFIG,
            "model-1.safetensors": safetensors(2),
            "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}',
        },
        ["model.path=m: model-2.safetensors is missing, named by model.safetensors.index.json"],
    ),
    "an index cut off": (
        {"config.json": CONFIG, "model.safetensors": safetensors(2), "model.safetensors.index.json": b'{"weight'},
        ["model.path=m: model.safetensors.index.json cannot be read; copy it again"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_bad_model_folder(
    name: str, refuse: Refuse, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, expected = MODELS[name]
    (tmp_path / "m").mkdir()
    for file, content in files.items():
        (tmp_path / "m" / file).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert refuse(["model=m", f"model.tokenizer={place / 'tokenizer'}", f"data={place / 'chats.jsonl'}"]) == expected


TEMPLATES: dict[str, tuple[str, list[str]]] = {
    "not Jinja": (
        "{% for m in %}",
        ["chat template, line 1: Expected an expression, got 'end of statement block'; data.chat_template names another"],
    ),
    "refuses every chat": (
        "{{ raise_exception('one turn only') }}",
        [
            "the chat template fails on a plain chat of two turns (one turn only); data.chat_template=FILE replaces it, "
            "data.template_args gives it arguments"
        ],
    ),
    "needs an argument": (
        "{{ clinic.name.upper() }}",
        [
            "the chat template fails on a plain chat of two turns (UndefinedError); data.chat_template=FILE replaces it, "
            "data.template_args gives it arguments"
        ],
    ),
    "drops the answer": (
        "{{ messages[0].content }}<|im_end|>",
        ["the chat template leaves out the assistant's text; data.chat_template=FILE replaces it"],
    ),
    "ends no turn": (
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        [
            "the chat template writes no end-of-turn token behind the assistant's text: a model would never learn to "
            "stop; data.chat_template=FILE replaces it, or add the token to the tokenizer's special tokens"
        ],
    ),
    "empty": ("\n", ["data.chat_template=t.jinja: the file is empty; give a UTF-8 Jinja file"]),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_bad_chat_template(name: str, refuse: Refuse, place: Path) -> None:
    content, expected = TEMPLATES[name]
    (place / "t.jinja").write_text(content)
    assert refuse([*BASE, "data.chat_template=t.jinja"]) == expected
    assert list((place / "stores").glob("*")) == []


def test_a_tokenizer_without_template(refuse: Refuse, place: Path, tmp_path: Path) -> None:
    values = json.loads((place / "tokenizer" / "tokenizer_config.json").read_text())
    del values["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
    os.link(place / "tokenizer" / "tokenizer.json", tmp_path / "tokenizer.json")
    assert refuse([*BASE, f"model.tokenizer={tmp_path}"]) == [
        f"{tmp_path}: the tokenizer has no chat template; data.chat_template=FILE.jinja gives one "
        "(a base model usually has none: objective=cpt learns plain text)"
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no tokenizer that can be read (ValueError); the folder holds nothing"),
        ("{", "no tokenizer that can be read (JSONDecodeError); the folder holds tokenizer.json"),
        ("{}", "no tokenizer that can be read (KeyError); the folder holds tokenizer.json"),
    ],
)
def test_bad_tokenizer_folder(content: str | None, expected: str, refuse: Refuse, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    assert refuse([*BASE, f"model.tokenizer={tmp_path}"]) == [f"{tmp_path}: {expected}"]


def test_too_few_steps(refuse: Refuse) -> None:
    options = ("data.store=few", "data.sequence_length=128", "training.global_batch_size=8", "data.validation=none")
    assert refuse([*BASE, *options]) == [
        "training.global_batch_size=8: 14 packed rows and 3 epochs make 6 optimizer steps, too few to learn from "
        "(training.min_steps=20); training.global_batch_size=1 gives 42; training.min_steps=0 allows it"
    ]


def test_too_few_steps_whatever_the_batch(refuse: Refuse) -> None:
    assert refuse([*BASE, "data.store=few", "data.validation=none"]) == [
        "training.global_batch_size=32: 1 packed rows and 3 epochs make 1 optimizer steps, too few to learn from "
        "(training.min_steps=20); even one row a step gives 3: more data or a longer training.duration is needed; "
        "training.min_steps=0 allows it"
    ]


def test_a_vocabulary_larger_than_the_embedding(refuse: Refuse, place: Path) -> None:
    size = len(json.loads((place / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"])
    options = ("data.store=few", "data.sequence_length=64", "training.min_steps=0", "model.arch.vocab_size=100")
    assert refuse([*BASE, *options]) == [
        f"the tokenizer knows {size} tokens, the model's embedding has 100 rows; they do not belong together "
        "(model.tokenizer, model.path)"
    ]


def test_no_adapter_could_be_attached(refuse: Refuse) -> None:
    options = ("data.store=few", "data.sequence_length=64", "training.min_steps=0", "adapter=lora", "adapter.target_modules=[wq]")
    assert refuse([*BASE, *options]) == [
        "adapter.target_modules=['wq']: no adapter could be attached; linear layers of this model: down_proj, gate_proj, "
        "k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
    ]
