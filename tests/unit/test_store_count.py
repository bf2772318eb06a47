"""Sizes before and after preparing: exact from the store, close from a sample, and no torch for either."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import ByteLevelBPETokenizer

from configs.errors import DataError
from configs.schema import DataSection, SourceSection
from data_pipelines.build import prepare
from data_pipelines.index import count

WORDS = ["腫瘤", "科", "醫生", "話", "要", "做", "化療", "chemotherapy", "patient", "two", "cycles", "scan", "shows"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        [" ".join(WORDS)] * 9, 400, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False
    )
    bpe.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


def _chats(number: int, *, seed: int = 0) -> list[str]:
    draw = random.Random(seed)

    def words() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 60)))

    return [
        json.dumps({"messages": [{"role": "user", "content": words()}, {"role": "assistant", "content": words()}]})
        for _ in range(number)
    ]


def _as_lines(folder: Path, chats: list[str]) -> Path:
    path = folder / "chats.jsonl"
    path.write_text("\n".join(chats) + "\n")
    return path


def _as_gzip(folder: Path, chats: list[str]) -> Path:
    path = folder / "chats.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(chats).encode()))
    return path


def _as_array(folder: Path, chats: list[str]) -> Path:
    path = folder / "chats.json"
    path.write_text(f"[{','.join(chats)}]")
    return path


def _as_table(folder: Path, chats: list[str]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "chats.parquet"
    pq.write_table(pa.Table.from_pylist([json.loads(chat) for chat in chats]), path)
    return path


@pytest.mark.parametrize(
    ("write", "validation"),
    [(_as_lines, "none"), (_as_lines, "20%"), (_as_gzip, "none"), (_as_array, "none"), (_as_table, "20%")],
)
def test_the_estimate_is_close_and_the_store_exact(
    tokenizer: str, tmp_path: Path, write: Callable[[Path, list[str]], Path], validation: str
) -> None:
    # Four megabytes: more than is sampled.
    data = DataSection(
        train=str(write(tmp_path, _chats(6000))),
        validation=validation,
        sequence_length=256,
        store=str(tmp_path / "stores"),
        workers=1,
    )
    estimated = count(data, "sft", tokenizer, seed=1)
    assert not estimated.exact
    assert count(data, "sft", tokenizer, seed=1) == estimated
    assert not (tmp_path / "stores").exists()
    store = prepare(data, "sft", tokenizer, seed=1).train
    exact = count(data, "sft", tokenizer, seed=1)
    assert (exact.tokens, exact.supervised, exact.rows) == (store.tokens, store.supervised, store.num_rows)
    assert exact.exact
    for name in ("tokens", "supervised", "rows"):
        assert getattr(estimated, name) == pytest.approx(getattr(exact, name), rel=0.05), name


def test_a_small_file_is_read_whole_and_weights_count(tokenizer: str, tmp_path: Path) -> None:
    path = str(_as_lines(tmp_path, _chats(50)))
    once = DataSection(train=path, validation="none", sequence_length=256, store=str(tmp_path / "stores"), workers=1)
    store = prepare(once, "sft", tokenizer, seed=1).train
    twice = DataSection(
        sources={"a": SourceSection(path=path, weight=2.0)},
        validation="none",
        sequence_length=256,
        store=str(tmp_path / "others"),
    )
    found = count(twice, "sft", tokenizer, seed=1)
    assert (found.tokens, found.supervised) == (2 * store.tokens, 2 * store.supervised)


def test_without_packing_rows_are_documents(tokenizer: str, tmp_path: Path) -> None:
    path = str(_as_lines(tmp_path, _chats(50)))
    data = DataSection(
        train=path, validation="none", sequence_length=256, packing=False, store=str(tmp_path / "stores")
    )
    assert count(data, "sft", tokenizer, seed=1).rows == 50


def test_plain_text(tokenizer: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(" ".join(random.Random(i).choices(WORDS, k=30)) for i in range(9000)))
    data = DataSection(
        train=str(path), validation="none", sequence_length=256, store=str(tmp_path / "stores"), workers=1
    )
    estimated = count(data, "cpt", tokenizer, seed=1)
    store = prepare(data, "cpt", tokenizer, seed=1).train
    assert estimated.tokens == pytest.approx(store.tokens, rel=0.05)


def test_unusable_rows_are_an_error_with_the_next_step(tokenizer: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"messages": 1}\n' * 20)
    with pytest.raises(DataError, match=r"not one of the sampled rows can be used; `aisc inspect` shows"):
        count(DataSection(train=str(path), store=str(tmp_path / "stores")), "sft", tokenizer, seed=1)
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        count(DataSection(train=str(path), store=str(tmp_path / "stores")), "sft", str(tmp_path), seed=1)


def test_neither_torch_nor_transformers_is_imported(tokenizer: str, tmp_path: Path) -> None:
    path = _as_lines(tmp_path, _chats(50))
    code = f"""
import sys
from configs.schema import DataSection
from data_pipelines.index import count
data = DataSection(train={str(path)!r}, store={str(tmp_path / "stores")!r}, sequence_length=256)
assert count(data, "sft", {tokenizer!r}, seed=1).tokens > 0
assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
