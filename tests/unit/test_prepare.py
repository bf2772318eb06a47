"""From files to a prepared store: sources, formats, weights, split, over-length policies, what is counted."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema import DataSection, SourceSection
from data_pipelines.build import Prepared, prepare
from data_pipelines.index import Store
from tests.kills.lab import make_tokenizer

Row = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    make_tokenizer(folder, [f"question {i} answer {i * 7}" for i in range(100)])
    return str(folder)


def chats(count: int) -> list[Row]:
    return [
        {
            "messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i * 7}"}],
            "patient": f"p{i % 10}",
        }
        for i in range(count)
    ]


def write_jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def prepared(tmp_path: Path, tokenizer: str, objective: str = "sft", seed: int = 1, **section: Any) -> Prepared:
    options = {"sequence_length": 64, "validation": "none", "workers": 1, "store": str(tmp_path / "stores"), **section}
    return prepare(DataSection(**options), objective, tokenizer, seed=seed)


def documents(store: Store) -> Counter[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Returns how often each (ids, mask) is in the store."""
    found = (store.document(i) for i in range(store.num_documents))
    return Counter((tuple(map(int, ids)), tuple(map(bool, mask))) for ids, mask in found)


def write_as(kind: str, folder: Path, rows: list[Row]) -> Path:
    """Writes rows in one of the formats that are read."""
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = folder / f"rows.{kind}"
    if kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "saved":
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    elif kind == "jsonl.zst":
        with pa.output_stream(str(path), compression="zstd") as out:
            out.write(lines)
    else:
        opener = {"jsonl.gz": gzip.open, "jsonl.bz2": bz2.open, "jsonl.xz": lzma.open, "jsonl": open}[kind]
        with opener(path, "wb") as file:  # type: ignore[operator]
            file.write(lines)
    return path


@pytest.mark.parametrize("kind", ["json", "parquet", "saved", "jsonl.gz", "jsonl.bz2", "jsonl.xz", "jsonl.zst"])
def test_every_container_holds_the_same_documents(tmp_path: Path, tokenizer: str, kind: str) -> None:
    rows = chats(30)
    plain = prepared(tmp_path, tokenizer, train=str(write_as("jsonl", tmp_path, rows)))
    other = prepared(tmp_path, tokenizer, train=str(write_as(kind, tmp_path, rows)))
    assert documents(other.train) == documents(plain.train)
    assert other.account.rows == 30


def test_other_formats_give_the_chats_that_they_mean(tmp_path: Path, tokenizer: str) -> None:
    plain = prepared(tmp_path, tokenizer, train=str(write_jsonl(tmp_path / "a.jsonl", chats(10))))
    sharegpt = [
        {"conversations": [{"from": "human", "value": f"question {i}"}, {"from": "gpt", "value": f"answer {i * 7}"}]}
        for i in range(10)
    ]
    alpaca = [{"instruction": f"question {i}", "input": "", "output": f"answer {i * 7}"} for i in range(10)]
    for name, rows in (("sharegpt", sharegpt), ("alpaca", alpaca)):
        found = prepared(tmp_path, tokenizer, train=str(write_jsonl(tmp_path / f"{name}.jsonl", rows)))
        assert documents(found.train) == documents(plain.train), name
        assert found.account.sources["train"].format == name


def test_csv_and_mapped_columns(tmp_path: Path, tokenizer: str) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ask", "reply"])
        writer.writerows([f"question {i}", f"answer {i * 7}"] for i in range(10))
    columns = {"instruction": "ask", "output": "reply"}
    source = {"one": SourceSection(path=str(tmp_path / "a.csv"), format="alpaca", columns=columns)}
    plain = prepared(tmp_path, tokenizer, train=str(write_jsonl(tmp_path / "a.jsonl", chats(10))))
    assert documents(prepared(tmp_path, tokenizer, sources=source).train) == documents(plain.train)


def test_continued_pretraining_learns_all_but_the_first_token(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "a.txt").write_text("First line of text.\n\nSecond one.\n")
    store = prepared(tmp_path, tokenizer, "cpt", train=str(tmp_path / "a.txt")).train
    assert store.num_documents == 2
    for ids, mask in documents(store):
        assert mask == (False, *[True] * (len(ids) - 1))


def test_bom_and_crlf_change_nothing(tmp_path: Path, tokenizer: str) -> None:
    plain = write_jsonl(tmp_path / "a.jsonl", chats(5))
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    found = prepared(tmp_path, tokenizer, train=str(tmp_path / "b.jsonl"))
    assert documents(found.train) == documents(prepared(tmp_path, tokenizer, train=str(plain)).train)


def test_weights_repeat_and_thin_out_whole_documents(tmp_path: Path, tokenizer: str) -> None:
    rows = chats(200)
    write_jsonl(tmp_path / "a.jsonl", rows[:100])
    write_jsonl(tmp_path / "b.jsonl", rows[100:])
    sources = {
        "twice": SourceSection(path=str(tmp_path / "a.jsonl"), weight=2.0),
        "half": SourceSection(path=str(tmp_path / "b.jsonl"), weight=0.5),
    }
    found = prepared(tmp_path, tokenizer, sources=sources)
    by_source: dict[str, Counter[int]] = {"twice": Counter(), "half": Counter()}
    for document in range(found.train.num_documents):
        source, line = found.train.origin(document)
        by_source[source][line] += 1
    assert by_source["twice"] == Counter(dict.fromkeys(range(1, 101), 2))
    assert set(by_source["half"].values()) == {1} and 35 <= len(by_source["half"]) <= 65
    again = prepared(tmp_path / "again", tokenizer, sources=sources)
    assert documents(again.train) == documents(found.train), "the half is keyed, not drawn"
    assert found.account.sources["twice"].share + found.account.sources["half"].share == pytest.approx(1)


def test_groups_stay_on_one_side(tmp_path: Path, tokenizer: str) -> None:
    rows = chats(300)
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    found = prepared(tmp_path, tokenizer, train=path, validation="20%", group_by="patient")
    assert found.validation is not None
    sides = [
        {rows[store.origin(i)[1] - 1]["patient"] for i in range(store.num_documents)}
        for store in (found.train, found.validation)
    ]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == {f"p{i}" for i in range(10)}
    assert found.account.held_out_groups == len(sides[1]) >= 1


def test_the_split_does_not_depend_on_the_order_of_rows(tmp_path: Path, tokenizer: str) -> None:
    rows = chats(200)
    held_out = []
    for name, given in (("forward", rows), ("backward", rows[::-1])):
        found = prepared(tmp_path, tokenizer, train=str(write_jsonl(tmp_path / f"{name}.jsonl", given)), validation="10%")
        assert found.validation is not None
        held_out.append(documents(found.validation))
    assert held_out[0] == held_out[1] and held_out[0].total() == 20


def test_held_out_rows_are_left_out_of_training(tmp_path: Path, tokenizer: str) -> None:
    rows = chats(50)
    train, held_out = write_jsonl(tmp_path / "a.jsonl", rows), write_jsonl(tmp_path / "b.jsonl", rows[:7])
    found = prepared(tmp_path, tokenizer, train=str(train), validation=str(held_out), duplicates="drop")
    assert found.train.num_documents == 43 and found.account.sources["train"].also_held_out == 7


LONG = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "long " * 60}]}


@pytest.mark.parametrize("policy", ["truncate", "drop", "split"])
def test_what_a_long_document_costs_is_counted(tmp_path: Path, tokenizer: str, policy: str) -> None:
    path = str(write_jsonl(tmp_path / "a.jsonl", [*chats(5), LONG]))
    whole = prepared(tmp_path, tokenizer, train=path, sequence_length=1024).account
    cut = prepared(tmp_path, tokenizer, train=path, overlength=policy)
    lost = sum(count[1] for count in cut.account.sources["train"].lost.values())
    assert cut.account.supervised + lost == whole.supervised, "every learned token is kept or counted"
    assert int(np.diff(cut.train.document_offsets).max()) <= 64
    assert cut.account.dropped == (1 if policy == "drop" else 0)


def test_left_out_rows_are_counted_by_reason(tmp_path: Path, tokenizer: str) -> None:
    bad = [{"messages": [{"role": "user", "content": "q"}]}] * 3
    found = prepared(tmp_path, tokenizer, train=str(write_jsonl(tmp_path / "a.jsonl", [*chats(20), *bad])), max_bad_rows=3)
    assert found.account.bad_rows == 3 and sum(found.account.sources["train"].bad.values()) == 3
    assert found.train.num_documents == 20


def test_limit_takes_the_first_rows_of_each_source(tmp_path: Path, tokenizer: str) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", chats(40))
    sources = {name: SourceSection(path=str(tmp_path / f"{name}.jsonl")) for name in ("a", "b")}
    found = prepared(tmp_path, tokenizer, sources=sources, limit=6)
    origins = sorted(found.train.origin(i) for i in range(found.train.num_documents))
    assert origins == [(name, line) for name in ("a", "b") for line in range(1, 7)]


def test_a_system_prompt_goes_before_chats_that_have_none(tmp_path: Path, tokenizer: str) -> None:
    own = {"messages": [{"role": "system", "content": "own"}, *chats(1)[0]["messages"]]}
    path = str(write_jsonl(tmp_path / "a.jsonl", [*chats(3), own]))
    plain = prepared(tmp_path, tokenizer, train=path)
    found = prepared(tmp_path, tokenizer, train=path, system_prompt="Be brief.")
    longer = [int(a) - int(b) for a, b in zip(_sizes(found.train), _sizes(plain.train), strict=True)]
    assert sorted(longer)[0] == 0 and sorted(longer)[1:] == [max(longer)] * 3 and max(longer) > 0


def test_a_system_column_is_the_first_message(tmp_path: Path, tokenizer: str) -> None:
    """Nothing of a row is left out in silence: what stands beside the turns is read like a first one among them."""
    row = chats(1)[0]
    inside = {"messages": [{"role": "system", "content": "Be brief."}, *row["messages"]]}
    forms = (inside, {**row, "system": "Be brief."}, {**row, "system": " "}, row)
    stores = [
        prepared(tmp_path / str(n), tokenizer, train=str(write_jsonl(tmp_path / f"{n}.jsonl", [form]))).train
        for n, form in enumerate(forms)
    ]
    assert np.array_equal(stores[1].ids, stores[0].ids) and np.array_equal(stores[1].mask, stores[0].mask)
    assert np.array_equal(stores[2].ids, stores[3].ids) and len(stores[3].ids) < len(stores[0].ids)


def _sizes(store: Store) -> list[int]:
    sizes = {store.origin(i)[1]: int(size) for i, size in enumerate(np.diff(store.document_offsets))}
    return [sizes[line] for line in sorted(sizes)]


def test_processes_do_not_change_the_store(tmp_path: Path, tokenizer: str) -> None:
    rows = [{**row, "note": "x" * 4000} for row in chats(3000)]
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    stores = [prepared(tmp_path / str(n), tokenizer, train=path, workers=n).train for n in (1, 2)]
    for name in ("ids", "mask", "document_offsets", "row_offsets", "document_row"):
        assert np.array_equal(getattr(stores[0], name), getattr(stores[1], name)), name
    assert stores[0].fingerprint == stores[1].fingerprint
