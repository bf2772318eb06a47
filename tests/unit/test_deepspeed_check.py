"""What DeepSpeed's own models say of merged settings, as one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from configs.errors import ConfigError
from train.deepspeed_check import check_with_deepspeed

OURS: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 1,
    "gradient_clipping": 0.0,
    "zero_optimization": {"stage": 2},
}


def test_ours_alone_are_fine() -> None:
    check_with_deepspeed(OURS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"zero_optimization": {"stage": 2, "reduce_bucket_size": 0}},
            "engine.deepspeed: zero_optimization.reduce_bucket_size=0: DeepSpeed refuses it (input should be greater than 0)",
        ),
        (
            {"zero_optimization": {"stage": 7}},
            "engine.deepspeed: zero_optimization.stage=7: DeepSpeed refuses it (input should be 0, 1, 2, 3 or 3)",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "tape"}}},
            "engine.deepspeed: zero_optimization.offload_optimizer.device=tape: DeepSpeed refuses it (input should be "
            "'none', 'cpu' or 'nvme')",
        ),
        (
            {"communication_data_type": "fp8"},
            "engine.deepspeed: DeepSpeed refuses it (Invalid communication_data_type. Supported data types: ['fp16', "
            "'bf16', 'fp32']. Got: fp8)",
        ),
        (
            {"bf16": {"enabled": True}, "fp16": {"enabled": True}},
            "engine.deepspeed: DeepSpeed refuses it (bfloat16 and fp16 modes cannot be simultaneously enabled)",
        ),
    ],
)
def test_a_refusal_is_one_sentence(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_with_deepspeed({**OURS, **given})
    assert caught.value.problems == [expected]


def test_a_version_whose_keys_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed ignores a key at the top level that it does not know."""
    check_with_deepspeed({**OURS, "train_bach_size": 4})
    monkeypatch.setattr("train.deepspeed_check.known_keys", lambda: None)
    with pytest.raises(ConfigError, match=r"^engine.deepspeed: which keys DeepSpeed 0\.19\.\d+ reads is not known here"):
        check_with_deepspeed(OURS)
