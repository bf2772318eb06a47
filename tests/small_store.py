"""Small stores for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.index import Store
from data_pipelines.store import Document, StoreWriter


def random_documents(
    lengths: Sequence[int], *, vocab_size: int = 500, seed: int = 0, num_sources: int = 2
) -> list[Document]:
    """Returns one document of random tokens per length; about two in three tokens are learned."""
    rng = np.random.default_rng(seed)
    return [
        Document(
            ids=rng.integers(0, vocab_size, length).astype(np.uint32),
            mask=rng.random(length) < 0.66,
            source=number % num_sources,
            group=number,
            row=number + 1,
        )
        for number, length in enumerate(lengths)
    ]


def write_store(
    folder: Path,
    items: Sequence[Sequence[Document]],
    *,
    sequence_length: int = 32,
    vocab_size: int = 500,
    packing: bool = True,
    fingerprint: str = "f" * 64,
) -> Store:
    """Writes `items` (documents that share a row) to `folder` and opens them."""
    writer = StoreWriter(
        folder,
        fingerprint=fingerprint,
        sequence_length=sequence_length,
        sources=["notes", "guidelines"],
        vocab_size=vocab_size,
        packing=packing,
    )
    for item in items:
        writer.add_item(item)
    writer.finish({"rows": len(items)})
    return Store(folder)


def small_store(folder: Path, lengths: Sequence[int], *, sequence_length: int = 32, packing: bool = True) -> Store:
    """Writes random documents of `lengths`, each an item of its own."""
    items = [[document] for document in random_documents(lengths)]
    return write_store(folder, items, sequence_length=sequence_length, packing=packing)
