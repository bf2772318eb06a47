"""Log-probabilities of the reference model: those of a plain forward of each document alone, and never with dropout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_pipelines.index import Store
from tests.small_store import small_store
from train import attention
from train.distributed import Dims
from train.evaluate import Evaluator
from train.reference import log_probabilities
from train.scores import Scores

SHAPE = {
    "vocab_size": 500,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_dropout": 0.5,
}


def scores() -> Scores:
    attention.register()
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    model.set_attn_implementation(attention.choose("auto", torch.device("cpu"))[0])
    return Scores(model, precision="fp32")


def plainly(model: torch.nn.Module, store: Store) -> list[float]:
    """The sum over each document's labelled tokens, in a forward pass of its own."""
    model.eval()
    found = []
    for number in range(store.num_documents):
        ids, mask = store.document(number)
        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        with torch.no_grad():
            logits = model(input_ids=tokens).logits[0].double().log_softmax(-1)
        found.append(sum(float(logits[t - 1, int(ids[t])]) for t in range(1, len(ids)) if mask[t]))
    return found


def test_they_are_those_of_each_document_alone(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", [5, 1, 12, 7, 30, 9, 2, 16])
    module = scores().train()  # dropout would be on
    found = log_probabilities(module, Evaluator(store, Dims(0, 1, 1), torch.device("cpu"), 2, 0))
    assert module.training
    np.testing.assert_allclose(found, plainly(module.model, store), rtol=1e-5, atol=1e-4)


def test_the_micro_batch_changes_nothing(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", [5, 1, 12, 7, 30, 9, 2, 16])
    one, many = (log_probabilities(scores(), Evaluator(store, Dims(0, 1, 1), torch.device("cpu"), rows, 0)) for rows in (1, 3))
    np.testing.assert_allclose(one, many, rtol=1e-6, atol=1e-5)
