"""How much data a configuration has, for plans: counted in its store when there is one, else estimated. Needs no torch."""

from __future__ import annotations

from configs.schema import RunConfig
from launch.plan import Size


def count_data(config: RunConfig) -> Size | None:
    """Returns the size of the training data within about a second; None without data or tokenizer.

    Raises:
        DataError: sources, tokenizer or template cannot be used.
    """
    folder = config.model.tokenizer or config.model.path
    if folder is None or not config.data.named_sources():
        return None
    from data_pipelines.index import count

    found = count(config.data, config.objective.name, folder, seed=config.training.seed, is_quick=True)
    return Size(found.tokens, found.supervised, found.rows, "the store's own count" if found.exact else "", is_counted=found.exact)
