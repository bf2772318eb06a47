"""The model looked at, not taught: no dropout, no gradients, its mode as it was afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Puts `module` in evaluation mode without gradients while the body runs."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)
