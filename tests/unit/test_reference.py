"""Log-probabilities of the reference model: those of a plain forward of each document alone, and never with dropout."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from configs.errors import ConfigError
from data_pipelines.index import Store
from tests.small_store import small_store
from train import attention
from train.distributed import Dims
from train.evaluate import Evaluator
from train.finish import store_files
from train.reference import PassStopped, _compute
from train.reference_pass import log_probabilities
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


class Asked:
    """Says yes at the `last`-th time of asking."""

    def __init__(self, last: int) -> None:
        self.count, self.last = 0, last

    def __call__(self) -> bool:
        self.count += 1
        return self.count >= self.last


def test_a_stopped_pass_is_kept_and_taken_up(tmp_path: Path) -> None:
    parts = {
        "train": Evaluator(small_store(tmp_path / "a", [20] * 6), Dims(0, 1, 1), torch.device("cpu"), 1, 0),
        "validation": Evaluator(small_store(tmp_path / "b", [20] * 5), Dims(0, 1, 1), torch.device("cpu"), 1, 0),
    }
    folder, module = tmp_path / "reference" / "columns", scores()
    whole = {name: log_probabilities(module, part) for name, part in parts.items()}
    batches, said = 0, io.StringIO()

    def count(*_: object) -> None:
        nonlocal batches
        batches += 1

    module.register_forward_hook(count)
    for last in (4, 4):  # within the first part, within the second
        with pytest.raises(PassStopped):
            _compute(folder, module, parts, Console(file=said, width=200), Asked(last), is_main=True)
        assert not folder.exists() and list(folder.parent.iterdir())
        assert not [name for name in store_files(tmp_path) if name.startswith("reference")], "another run's manifest"
    found = _compute(folder, module, parts, Console(file=said, width=200), Asked(99), is_main=True)
    assert batches == 11, "nothing is computed twice"
    for name, column in found.items():
        np.testing.assert_array_equal(column, whole[name])
        np.testing.assert_array_equal(np.load(folder / f"{name}.npy"), whole[name])
    assert [path.name for path in folder.parent.iterdir()] == ["columns"]
    assert "11 documents, 8 of them known from before" in said.getvalue()


def test_a_place_that_cannot_be_written_is_refused_before_the_pass(tmp_path: Path) -> None:
    parts = {"train": Evaluator(small_store(tmp_path / "a", [20] * 3), Dims(0, 1, 1), torch.device("cpu"), 1, 0)}
    (tmp_path / "reference").write_text("a file, where nobody can make a folder, root neither")
    with pytest.raises(ConfigError, match=r"columns: cannot be written \(.*\); data.store=FOLDER gives another place"):
        _compute(tmp_path / "reference" / "columns", torch.nn.Identity(), parts, None, None, is_main=True)


def test_a_damaged_file_of_a_stopped_pass_is_not_read(tmp_path: Path) -> None:
    parts = {"train": Evaluator(small_store(tmp_path / "a", [20] * 3), Dims(0, 1, 1), torch.device("cpu"), 1, 0)}
    (tmp_path / ".tmp-columns.begun.npy").write_bytes(b"no column")
    found = _compute(tmp_path / "columns", scores(), parts, None, None, is_main=True)
    np.testing.assert_array_equal(found["train"], log_probabilities(scores(), parts["train"]))


def test_a_reference_without_numbers_is_refused_and_not_kept(tmp_path: Path) -> None:
    parts = {"train": Evaluator(small_store(tmp_path / "a", [20] * 3), Dims(0, 1, 1), torch.device("cpu"), 1, 0)}
    module = scores()
    with torch.no_grad():
        module.model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ConfigError, match="of 3 of 3 documents is not finite, the first at line 1 of notes"):
        _compute(tmp_path / "columns", module, parts, None, None, is_main=True)
    assert not list(tmp_path.glob("*columns*"))
