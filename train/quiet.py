"""Silences what libraries say of themselves on every start, so that a user's screen holds the run only."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Turns off progress bars of loading and saving, and notices that no user of ours can act upon."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        # DeepSpeed, which transformers imports when it saves, otherwise warns that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


def quiet_deepspeed(device_type: str) -> None:
    """Keeps DeepSpeed's notices off the screen, and from compiling an exchange through shared memory for minutes."""
    if device_type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for name in ("DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.ERROR)
