"""The JSON that DeepSpeed gets: ours, the user's own settings merged over it, checked by DeepSpeed's own models."""

from __future__ import annotations

from typing import Any

from configs.deepspeed_keys import merge, settings_of
from configs.schema import EngineSection, TrainingSection
from train.deepspeed_check import check_with_deepspeed

NEVER = 10**9


def deepspeed_config(section: EngineSection, training: TrainingSection, device: str) -> dict[str, Any]:
    """Returns the complete DeepSpeed configuration of a run.

    Args:
        section: `engine`.
        training: `training`; the micro-batch may still be auto, as DeepSpeed only reports throughput with it.
        device: `cuda` or `cpu`.

    Raises:
        ConfigError: DeepSpeed itself refuses the user's settings.
    """
    micro = training.micro_batch_size
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro if isinstance(micro, int) else 1,
        "gradient_accumulation_steps": 1,
        # Unset, Accelerate would make it 1.0.
        "gradient_clipping": training.max_grad_norm,
        "steps_per_print": NEVER,
        "bf16": {"enabled": training.precision == "bf16"},
        "fp16": {"enabled": training.precision == "fp16"},
        "zero_optimization": _zero(section, device),
        # torch's own AdamW updates on the CPU too: DeepSpeed's would be compiled for minutes, and hang on a stale lock.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }
    if training.precision == "bf16":
        # Sums over micro-batches and ranks in fp32: bf16 keeps 8 bits, and a long sum loses some of them.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        config["communication_data_type"] = "fp32"
    theirs = settings_of(section)
    if theirs:
        config = merge(config, theirs)
        check_with_deepspeed(config)
    return config


def _zero(section: EngineSection, device: str) -> dict[str, Any]:
    stage = int(section.name.removeprefix("zero"))
    pinned = device == "cuda"
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": pinned, "contiguous_gradients": True}
    if section.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pinned}
    if section.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": pinned}
    return zero
