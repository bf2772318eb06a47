"""Routers of mixture-of-experts layers."""

from __future__ import annotations

from torch import nn


def moe_blocks(model: nn.Module) -> list[type[nn.Module]]:
    """Returns the classes of the blocks that hold a router and its experts."""
    found = {
        type(module)
        for module in model.modules()
        if any(type(child).__name__.endswith("TopkRouter") for child in module.children())
    }
    return sorted(found, key=lambda block: block.__name__)
