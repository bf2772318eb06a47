"""`engine.deepspeed`: settings as people have them, judged without importing DeepSpeed, and merged over ours."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs import compose, deepspeed_source
from configs.deepspeed_keys import merge, settings_of
from configs.facts import Facts
from configs.rules import check

# As the documentation of transformers has them, and as they are copied from project to project.
ZERO3_AUTO: dict[str, Any] = {
    "fp16": {
        "enabled": "auto",
        "loss_scale": 0,
        "loss_scale_window": 1000,
        "initial_scale_power": 16,
        "hysteresis": 2,
        "min_loss_scale": 1,
    },
    "bf16": {"enabled": "auto"},
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
    },
    "scheduler": {
        "type": "WarmupDecayLR",
        "params": {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto", "total_num_steps": "auto"},
    },
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "offload_param": {"device": "cpu", "pin_memory": True},
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}
ZERO2_OFFLOAD: dict[str, Any] = {
    "bf16": {"enabled": True},
    "zero_optimization": {
        "stage": 2,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "allgather_partitions": True,
        "allgather_bucket_size": 2e8,
        "overlap_comm": True,
        "reduce_scatter": True,
        "reduce_bucket_size": 2e8,
        "contiguous_gradients": True,
    },
    "gradient_clipping": 1.0,
    "train_batch_size": 32,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 2,
}
FOREIGN: dict[str, Any] = {
    "train_batch_size": 16,
    "optimizer": {"type": "OneBitAdam", "params": {"lr": 1e-3}},
    "fp16": {"enabled": True},
    "zero_optimization": {"stage": 2},
}
BASE = ("model=tiny_llama", "model.tokenizer=.", "data=.")


def resolved(settings: dict[str, Any], *arguments: str, num_gpus: int = 8) -> compose.Resolved:
    """The configuration with these settings in a file, on a machine of `num_gpus`."""
    Path("ds.json").write_text(json.dumps(settings, indent=2))
    config = compose.load([*BASE, "engine.deepspeed=ds.json", *arguments]).config
    return compose.resolve(config, Facts(num_gpus=num_gpus, model=config.model.arch, versions={"deepspeed": "0.19.8"}))


def judged(settings: dict[str, Any], *arguments: str, num_gpus: int = 8) -> list[str]:
    """What the rules say of these settings."""
    config = resolved(settings, *arguments, num_gpus=num_gpus).config
    return check(config, Facts(num_gpus=num_gpus, model=config.model.arch, versions={"deepspeed": "0.19.8"}))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_zero3_with_auto_everywhere_is_taken() -> None:
    made = resolved(ZERO3_AUTO, "lr_scheduler=linear")
    assert judged(ZERO3_AUTO, "lr_scheduler=linear") == []
    engine = made.config.engine
    assert (engine.name, engine.offload_optimizer, engine.offload_parameters) == ("zero3", True, True)
    assert made.reasons["engine.name"] == "the stage in engine.deepspeed"


def test_zero2_with_offload_is_taken() -> None:
    arguments = ("training.micro_batch_size=2", "training.precision=bf16", "engine.processes=8")
    assert judged(ZERO2_OFFLOAD, *arguments) == []
    engine = resolved(ZERO2_OFFLOAD, *arguments).config.engine
    assert (engine.name, engine.offload_optimizer, engine.offload_parameters) == ("zero2", True, False)


def test_a_scheduler_of_its_own_is_refused_with_its_line() -> None:
    assert judged(ZERO3_AUTO) == [
        "engine.deepspeed=ds.json:23: scheduler.type=WarmupDecayLR: lr_scheduler.name=cosine is what runs; remove the "
        "block scheduler, or lr_scheduler=linear"
    ]


def test_a_foreign_optimizer_and_what_else_is_ours() -> None:
    assert judged(FOREIGN, "training.precision=bf16") == [
        "engine.deepspeed=ds.json:2: train_batch_size=16: training.global_batch_size=32 is what counts; remove it or "
        "write auto, or training.global_batch_size=16",
        "engine.deepspeed=ds.json:4: optimizer.type=OneBitAdam: optimizer.name=adamw is what steps; remove the block "
        "optimizer, or write the optimizer section to say the same",
        "engine.deepspeed=ds.json:10: fp16.enabled=true: training.precision=bf16 is what counts; remove it or write "
        "auto, or training.precision=fp16",
    ]


def test_an_optimizer_that_says_what_ours_says_is_taken() -> None:
    block = {"type": "AdamW", "params": {"lr": 3e-5, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.01}}
    settings = {"optimizer": block, "zero_optimization": {"stage": 1}}
    assert judged(settings, "optimizer.lr=3e-5") == []
    assert judged(settings, "optimizer.lr=1e-5") == [
        "engine.deepspeed=ds.json:5: optimizer.params.lr=3e-05: optimizer.lr=1e-05 is what counts; remove it or write auto"
    ]


CASES: list[tuple[dict[str, Any], str]] = [
    ({"zero_optimisation": {"stage": 2}}, "zero_optimisation: no such key of DeepSpeed 0.19.8; did you mean zero_optimization?"),
    ({"zero_optimization": {"stge": 2}}, "zero_optimization.stge: no such key of DeepSpeed 0.19.8; did you mean stage?"),
    (
        {"zero_optimization": {"offload_optimizer": {"devcie": "cpu"}}},
        "zero_optimization.offload_optimizer.devcie: no such key of DeepSpeed 0.19.8; did you mean device?",
    ),
    ({"overlap_comm": True}, "overlap_comm: no such key of DeepSpeed 0.19.8; it belongs in zero_optimization"),
    ({"bf16": True}, "bf16=true: expected a mapping with enabled, immediate_grad_update, check_grad_overflow, ..."),
    ({"amp": {"enabled": True}}, "amp: DeepSpeed 0.19.8 no longer has it; remove it"),
    ({"zero_optimization": {"mics_shard_size": 8}}, "zero_optimization.mics_shard_size: DeepSpeed 0.19.8 no longer has it; remove it"),
    (
        {"gradient_clipping": 0.5},
        "gradient_clipping=0.5: training.max_grad_norm=1.0 is what counts; remove it or write auto, or training.max_grad_norm=0.5",
    ),
    (
        {"gradient_accumulation_steps": 8},
        "gradient_accumulation_steps=8: it follows from training.global_batch_size, training.micro_batch_size and the "
        "number of ranks, here 32 / (8 x 2) = 2; remove it or write auto",
    ),
    (
        {"train_micro_batch_size_per_gpu": 4},
        "train_micro_batch_size_per_gpu=4: training.micro_batch_size=2 is what counts; remove it or write auto, or "
        "training.micro_batch_size=4",
    ),
    (
        {"zero_optimization": {"stage": 3}},
        "zero_optimization.stage=3: engine.name=zero2; remove it, or engine.name=zero3",
    ),
    (
        {"zero_optimization": {"offload_optimizer": {"device": "nvme", "nvme_path": "/local"}}},
        "zero_optimization.offload_optimizer.device=nvme: offload goes to host memory only; expected cpu or none",
    ),
    (
        {"gradient_allreduce_op": "sum"},
        "gradient_allreduce_op=sum: gradients are averaged over ranks; a sum would scale the loss by their number; remove it",
    ),
    ({"torch_autocast": {"enabled": True}}, "torch_autocast.enabled=true: training.precision says it; remove it"),
    (
        {"zero_optimization": {"cpu_offload": True}},
        "zero_optimization.cpu_offload=true: DeepSpeed calls it deprecated; offload_optimizer: {device: cpu} says it; remove it",
    ),
    (
        {"bf16": {"check_grad_overflow": False}},
        "bf16.check_grad_overflow=false: an update from gradients that are not finite would ruin the weights; remove it",
    ),
    ({"bfloat16": {"bf16_optimizer_states": True}}, "bfloat16.bf16_optimizer_states=true: optimizer state is float32; remove it"),
    (
        {"fp16": {"loss_scale": 128}},
        "fp16.loss_scale=128: at a fixed scale a batch that overflows would be taken again for ever; 0 is a scale that "
        "adapts; remove it",
    ),
    (
        {"zero_optimization": {"offload_optimizer": {"device": "cpu", "ratio": 0.5}}},
        "zero_optimization.offload_optimizer.ratio=0.5: a part goes to the host only with DeepSpeed's own optimizer; remove it",
    ),
    (
        {"activation_checkpointing": {"cpu_checkpointing": True, "partition_activations": False}},
        "activation_checkpointing.cpu_checkpointing=true: training.gradient_checkpointing says what is recomputed; remove it",
    ),
    (
        {"wandb": {"enabled": True, "project": "p"}},
        "wandb.enabled=true: nothing goes to the network; tracker.wandb=true writes a W&B run offline; remove it",
    ),
    (
        {"zero_optimization": {"stage": "2"}},
        "zero_optimization.stage=2: expected the whole number 1, 2 or 3; engine=ddp is stage 0",
    ),
    (
        {"zero_optimization": {"stage": 0}},
        "zero_optimization.stage=0: expected the whole number 1, 2 or 3; engine=ddp is stage 0",
    ),
    ({"zero_optimization": {"compute_grad_norm": False}}, "zero_optimization.compute_grad_norm=false: every step needs its gradient norm; remove it"),
]


@pytest.mark.parametrize(("settings", "expected"), CASES, ids=[json.dumps(case[0]) for case in CASES])
def test_one_mistake_is_one_sentence(settings: dict[str, Any], expected: str) -> None:
    """The same sentence for a mapping in the configuration, where the key's path is the name."""
    arguments = ("engine=zero2", "training.micro_batch_size=2", "training.precision=bf16", "engine.processes=8")
    (found,) = judged(settings, *arguments)
    assert found.split(": ", 1)[1] == expected
    (typed,) = judged({}, *arguments, f"engine.deepspeed={json.dumps(settings)}")
    assert typed == f"engine.deepspeed.{expected}"


def test_a_key_that_is_no_text_is_an_unknown_one() -> None:
    (found,) = judged({}, "engine=zero2", "engine.deepspeed={zero_optimization: {3: 1}}")
    assert found == "engine.deepspeed.zero_optimization.3: no such key of DeepSpeed 0.19.8"


def test_a_stage_that_is_no_whole_number_chooses_no_engine() -> None:
    settings = {"zero_optimization": {"stage": 3.0}}
    assert resolved(settings).config.engine.name == "zero1"
    (found,) = judged(settings)
    assert found.endswith("zero_optimization.stage=3.0: expected the whole number 1, 2 or 3; engine=ddp is stage 0")


def test_pinned_memory_needs_an_accelerator() -> None:
    settings = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": True}}}
    assert judged(settings, num_gpus=0) == [
        "engine.deepspeed=ds.json:6: zero_optimization.offload_optimizer.pin_memory=true: memory is pinned for an "
        "accelerator, this machine shows no GPU; remove it or write auto"
    ]
    assert judged(settings, num_gpus=1) == []


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_engines_without_deepspeed_refuse_its_settings(engine: str) -> None:
    assert judged(ZERO2_OFFLOAD, f"engine={engine}")[-1] == (
        f"engine.deepspeed=ds.json: engine.name={engine} does not run DeepSpeed; expected engine.name=zero1, zero2 or "
        "zero3, or zero_optimization.stage in it with engine.name=auto"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,}', ":1: not JSON: illegal trailing comma before end of object, column 8"),
        ("", ":1: not JSON: expecting value, column 1"),
        ('{"bf16": {},\n "bf16": {}}', ': "bf16" is there twice in one block; keep one'),
        ('{"a', ":1: not JSON: unterminated string starting at column 2"),
        ("[1]", ": expected one JSON object {...}"),
        ('{"a": ' * 5000, ": no JSON that can be read; expected DeepSpeed's settings"),
        ('{"a": ' + "9" * 5000 + "}", ": no JSON that can be read; expected DeepSpeed's settings"),
    ],
)
def test_bad_files(text: str, expected: str) -> None:
    Path("ds.json").write_text(text)
    config = compose.resolve(compose.load([*BASE, "engine=zero2", "engine.deepspeed=ds.json"]).config, Facts(0)).config
    (found,) = [line for line in check(config, Facts(0)) if line.startswith("engine.deepspeed")]
    # Python 3.13 words the comma as above; 3.11 names what it expected instead.
    assert found in (f"engine.deepspeed=ds.json{expected}", 'engine.deepspeed=ds.json:1: not JSON: expecting property name enclosed in double quotes, column 9')


def test_every_key_of_deepspeed_s_own_models_is_known() -> None:
    """The parsed source against the imported classes, in a process of its own: importing takes seconds."""
    program = (
        "import json, deepspeed.runtime.zero.config as z, deepspeed.runtime.precision_config as p, deepspeed.comm.config as c\n"
        "models = {'zero_optimization': z.DeepSpeedZeroConfig, 'bf16': p.DeepSpeedBF16Config, 'fp16': p.DeepSpeedFP16Config,\n"
        "          'comms_logger': c.CommsLoggerConfig}\n"
        "found = {k: sorted({*m.model_fields, *(f.alias for f in m.model_fields.values() if f.alias)}) for k, m in models.items()}\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    known = deepspeed_source.known_keys()
    assert known is not None
    for block, fields in json.loads(done.stdout.splitlines()[-1]).items():
        assert sorted(known.keys[block]) == fields, block


def test_a_source_that_is_not_as_known_is_left_to_the_start(tmp_path: Path) -> None:
    package = Path(deepspeed_source.__file__).parent
    with pytest.raises(OSError):
        deepspeed_source.read_keys(package, "0.19.8")


def test_judging_needs_neither_torch_nor_two_seconds() -> None:
    Path("ds.json").write_text(json.dumps(FOREIGN))
    program = (
        "import sys, time; from cli.main import main; t = time.process_time()\n"
        f"code = main(['train', *{list(BASE)!r}, 'engine.deepspeed=ds.json', '--dry-run'])\n"
        "print(code, 'torch' in sys.modules, 'deepspeed' in sys.modules, time.process_time() - t < 2)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False", "False", "True"]
    assert "OneBitAdam" in done.stderr


def test_merging_fills_auto_and_keeps_what_is_ours() -> None:
    ours = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 1000, "stage3_param_persistence_threshold": 0},
    }
    before = copy.deepcopy((ours, ZERO3_AUTO))
    merged = merge(ours, ZERO3_AUTO)
    assert (ours, ZERO3_AUTO) == before
    assert merged["bf16"] == {"enabled": True}
    assert merged["gradient_clipping"] == 0.0
    assert merged["gradient_accumulation_steps"] == 1
    assert "optimizer" not in merged and "scheduler" not in merged and "train_batch_size" not in merged
    assert merged["fp16"] == {key: value for key, value in ZERO3_AUTO["fp16"].items() if key != "enabled"}
    zero = merged["zero_optimization"]
    assert (zero["reduce_bucket_size"], zero["stage3_param_persistence_threshold"]) == (1000, 0)
    assert "stage3_prefetch_bucket_size" not in zero
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert merged["steps_per_print"] == 2000
    assert "auto" not in json.dumps(merged)


def test_null_for_a_block_leaves_ours() -> None:
    ours = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}, "steps_per_print": 9}
    theirs = {"bf16": None, "zero_optimization": {"offload_optimizer": None}, "steps_per_print": None}
    assert merge(ours, theirs) == {**ours, "steps_per_print": None}


def test_two_spellings_of_one_key_are_one() -> None:
    ours = {"zero_optimization": {"stage3_param_persistence_threshold": 0, "stage": 3}}
    theirs = {"zero_optimization": {"param_persistence_threshold": 5}}
    assert merge(ours, theirs) == {"zero_optimization": {"stage": 3, "param_persistence_threshold": 5}}
    theirs = {"zero_optimization": {"param_persistence_threshold": "auto"}}
    assert merge(ours, theirs) == {"zero_optimization": {"stage": 3, "param_persistence_threshold": 0}}


def test_what_was_given_reaches_the_engine_from_a_file_and_from_a_frozen_configuration() -> None:
    config = resolved(ZERO2_OFFLOAD).config
    assert settings_of(config.engine) == ZERO2_OFFLOAD
    again = compose.load([*BASE, f"engine.deepspeed={json.dumps(ZERO2_OFFLOAD)}"]).config
    assert compose.thaw(compose.freeze(again)) == again
    assert settings_of(again.engine) == ZERO2_OFFLOAD
