"""`--smoke`: the same run on a handful of rows until it knows them by heart. A loss that stays up names a broken set-up."""

from __future__ import annotations

import copy

from configs.errors import RunFailed
from configs.schema import RunConfig

SMOKE_ROWS = 8
SMOKE_STEPS = 30
# Large enough that 30 steps memorise 8 rows; small enough that they do not diverge (measured on the tiny presets and
# SmolLM2-135M, see docs/correctness.md).
SMOKE_LR = {"none": 3e-4, "lora": 2e-3}
SMOKE_LR_RANDOM_WEIGHTS = 3e-3
# A run passes when the last loss is below this share of the first.
SMOKE_LOSS_SHARE = 0.35


def smoke_config(config: RunConfig) -> RunConfig:
    """Returns `config` changed to memorise the first 8 documents in 30 steps, without evaluation or export choices."""
    smoke = copy.deepcopy(config)
    smoke.data.limit = SMOKE_ROWS
    smoke.data.validation = "none"
    smoke.training.duration = f"{SMOKE_STEPS} steps"
    smoke.training.min_steps = 0
    smoke.training.global_batch_size = min(config.training.global_batch_size, SMOKE_ROWS)
    smoke.optimizer.lr = SMOKE_LR[config.adapter.name] if config.model.path else SMOKE_LR_RANDOM_WEIGHTS
    smoke.lr_scheduler.name = "constant"
    smoke.lr_scheduler.warmup = "0"
    smoke.checkpoint.every = "end"
    return smoke


def judge_smoke(first_loss: float, last_loss: float) -> str:
    """Returns one line of praise; raises RunFailed when the model did not learn its few rows."""
    if last_loss <= SMOKE_LOSS_SHARE * first_loss:
        return f"smoke test passed: loss {first_loss:.3f} -> {last_loss:.3f} in {SMOKE_STEPS} steps on {SMOKE_ROWS} documents"
    raise RunFailed(
        f"smoke test: loss went from {first_loss:.3f} to {last_loss:.3f} in {SMOKE_STEPS} steps on {SMOKE_ROWS} documents; "
        f"expected {SMOKE_LOSS_SHARE * first_loss:.3f} or less. Look at `aisc inspect` for the mask, and at optimizer.lr."
    )
