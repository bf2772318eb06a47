"""Learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from functools import lru_cache

from configs.durations import parse_duration
from configs.schema import LrSchedulerSection


def learning_rate(section: LrSchedulerSection, peak: float, step: int, total_steps: int) -> float:
    """Returns the learning rate of update `step`, counted from 0.

    Warm-up rises linearly and reaches `peak` at its last step. After it: constant; linear or half a cosine
    (arXiv 1608.03983, eq. 5, one period) to `min_lr_ratio * peak` at the last step; wsd (arXiv 2404.06395) is constant
    and falls linearly over the last `decay` steps.
    """
    warmup = share_steps(section.warmup, total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    floor = section.min_lr_ratio
    if section.name == "constant":
        return peak
    if section.name == "wsd":
        decay = max(1, share_steps(section.decay, total_steps))
        progress = (step - (total_steps - decay)) / decay
        return peak * (1 - (1 - floor) * min(1.0, max(0.0, progress)))
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    if section.name == "linear":
        return peak * (1 - (1 - floor) * progress)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


# Asked at every step for the same few texts.
@lru_cache(maxsize=8)
def share_steps(text: str, total_steps: int) -> int:
    """Returns `3%` of the run or `100 steps` as steps; `0` is none."""
    duration = parse_duration(text)
    return duration.steps(total_steps=total_steps, rows_per_epoch=1, global_batch_size=1, sequence_length=1)
