"""Documents that share a row do not see each other: what stands in one changes no gradient of another, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_pipelines.collate import Batch, collate
from tests.small_store import random_documents, write_store
from train import attention
from train.scores import Scores

LENGTHS = [9, 7, 11]


def _batch(folder: Path, *, perturbed: int | None) -> Batch:
    """Returns one row of three documents and padding; every token of document `perturbed` is another one."""
    documents = random_documents(LENGTHS, vocab_size=64)
    if perturbed is not None:
        documents[perturbed].ids[:] = (documents[perturbed].ids + 7) % 64
    batch = collate(write_store(folder, [documents], vocab_size=64), np.array([0]), pad_token_id=0)
    assert batch.cu_seqlens.tolist() == [0, 9, 16, 27, 32]
    return batch


def _gradients(implementation: str, batch: Batch, document: int) -> dict[str, torch.Tensor]:
    """Returns the gradients of the loss of document `document` alone, the whole row having gone through the model."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    attention.register()
    config._attn_implementation = implementation
    model = LlamaForCausalLM(config)
    scores = Scores(model, precision="fp32")(batch)
    scores[batch.target_document == document].sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("implementation", [attention.VARLEN_CPU, "sdpa"])
@pytest.mark.parametrize("perturbed", range(3))
def test_perturbing_one_document_leaves_the_others_gradients_bit_equal(
    implementation: str, perturbed: int, tmp_path: Path
) -> None:
    plain = _batch(tmp_path / "plain", perturbed=None)
    changed = _batch(tmp_path / "changed", perturbed=perturbed)
    for document in range(len(LENGTHS)):
        before = _gradients(implementation, plain, document)
        after = _gradients(implementation, changed, document)
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert before.keys() == after.keys()
        assert len(before) == 21
        assert same == (document != perturbed)


def test_without_boundaries_the_same_comparison_fails(tmp_path: Path) -> None:
    # The control: one position count through the row, and the whole row as one document.
    results = []
    for perturbed in (None, 0):
        batch = _batch(tmp_path / str(perturbed), perturbed=perturbed)
        batch.position_ids = torch.arange(32).unsqueeze(0)
        batch.cu_seqlens = torch.tensor([0, 32], dtype=torch.int32)
        results.append(_gradients(attention.VARLEN_CPU, batch, document=2))
    assert not all(torch.equal(results[0][name], results[1][name]) for name in results[0])
