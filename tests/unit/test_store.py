"""Stores: what goes in comes out, once; damage is named; one builder is enough, two do no harm."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipelines import store as store_module
from data_pipelines.index import COLUMNS, Store, open_part
from data_pipelines.store import StoreWriter, build_once
from tests.small_store import random_documents, small_store, write_store


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 10), min_size=1, max_size=3), min_size=1, max_size=25),
    packing=st.booleans(),
    chunk=st.sampled_from([7, 1 << 22]),
)
def test_every_document_once_with_its_group_in_one_row(
    sizes: list[list[int]], packing: bool, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    documents = random_documents([length for item in sizes for length in item])
    remaining = iter(documents)
    items = [[next(remaining) for _ in item] for item in sizes]
    original, store_module._CHUNK_TOKENS = store_module._CHUNK_TOKENS, chunk
    try:
        store = write_store(tmp_path_factory.mktemp("store"), items, packing=packing)
    finally:
        store_module._CHUNK_TOKENS = original
    assert sorted(store.document_row.tolist()) == [document.row for document in documents]
    by_input_row = {int(row): number for number, row in enumerate(store.document_row)}
    for document in documents:
        number = by_input_row[document.row]
        ids, mask = store.document(number)
        assert ids.tolist() == document.ids.tolist()
        assert mask.tolist() == [False, *document.mask.tolist()[1:]]
        assert store.document_source[number] == document.source
        assert store.document_group[number] == document.group
        assert store.document_targets[number] == document.mask[1:].sum()
        assert store.origin(number) == (["notes", "guidelines"][document.source], document.row)
    row_of = np.repeat(np.arange(store.num_rows), np.diff(store.row_offsets))
    for item in items:
        assert len({int(row_of[by_input_row[document.row]]) for document in item}) == 1
    assert store.row_tokens.max() <= store.sequence_length
    assert store.row_tokens.sum() == store.tokens == sum(map(sum, sizes))
    if not packing:
        assert store.num_rows == len(items)


def test_a_row_is_one_slice_with_its_boundaries(tmp_path: Path) -> None:
    store = small_store(tmp_path, [20, 12, 30, 2])
    assert store.num_rows == 2
    for number in range(store.num_rows):
        row = store.row(number)
        assert row.starts.tolist()[0] == 0
        for place, document in enumerate(row.documents):
            ids, mask = store.document(int(document))
            begin = int(row.starts[place])
            assert row.ids[begin : begin + len(ids)].tolist() == ids.tolist()
            assert row.mask[begin : begin + len(ids)].tolist() == mask.tolist()
        assert store.row_documents(number).tolist() == row.documents.tolist()


def test_description_counts_and_account(tmp_path: Path) -> None:
    store = small_store(tmp_path, [10, 12, 30, 2])
    meta = json.loads((tmp_path / "store.json").read_text())
    assert (meta["documents"], meta["rows"], meta["tokens"]) == (4, store.num_rows, 54)
    assert meta["account"] == {"rows": 4}
    assert store.supervised == meta["supervised"]
    assert store.fill == 54 / (32 * store.num_rows)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_ids_take_two_bytes_when_the_vocabulary_allows(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    document = random_documents([4])[0]
    document.ids[1] = vocab_size - 1
    store = write_store(tmp_path, [[document]], vocab_size=vocab_size)
    assert store.ids.dtype == dtype
    assert store.document(0)[0].tolist() == document.ids.tolist()


def test_an_id_that_would_wrap_around_is_refused(tmp_path: Path) -> None:
    document = random_documents([4])[0]
    document.ids[1] = 65_536
    with pytest.raises(ValueError, match="token id 65536 in a vocabulary of 500"):
        write_store(tmp_path, [[document]])


def test_an_empty_part(tmp_path: Path) -> None:
    store = write_store(tmp_path, [])
    assert (store.num_rows, store.num_documents, store.tokens, store.fill) == (0, 0, 0, 0.0)


def test_the_bulk_path_writes_the_same_bytes(tmp_path: Path) -> None:
    documents = random_documents([5, 9, 3, 30])
    one_by_one = write_store(tmp_path / "a", [[document] for document in documents])
    writer = StoreWriter(
        tmp_path / "b",
        fingerprint="f" * 64,
        sequence_length=32,
        sources=["notes", "guidelines"],
        vocab_size=500,
        packing=True,
    )
    mask = np.concatenate([document.mask for document in documents])
    before = mask.copy()
    writer.add_many(
        np.concatenate([document.ids for document in documents]),
        mask,
        np.array([len(document.ids) for document in documents]),
        source=np.array([document.source for document in documents]),
        group=np.array([document.group for document in documents]),
        row=np.array([document.row for document in documents]),
    )
    writer.finish({"rows": 4})
    assert mask.tolist() == before.tolist()
    assert Store(tmp_path / "b").meta == one_by_one.meta


def test_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        assert build_once(tmp_path / "stores" / "fp", lambda folder: small_store(folder / "train", [4]))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "stores" / "fp" / "train").stat().st_mode) == 0o700
    for path in (tmp_path / "stores" / "fp").rglob("*.*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("damage", [Path.unlink, _truncate, _flip_a_bit])
def test_damage_is_named(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    small_store(tmp_path / "train", [10, 12, 30, 2]).verify()
    damage(tmp_path / "train" / f"{name}.npy")
    with pytest.raises(DataError, match=rf"{name}\.npy: .*delete {tmp_path} to rebuild"):
        Store(tmp_path / "train").verify()


@pytest.mark.parametrize("content", [None, "", '{"schema": 1', '{"schema": 99}', "[]"])
def test_a_damaged_description_is_named(tmp_path: Path, content: str | None) -> None:
    small_store(tmp_path / "train", [10])
    path = tmp_path / "train" / "store.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"store\.json: .*to rebuild"):
        Store(tmp_path / "train")


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.fail("this test needs /dev/full")

    def build(folder: Path) -> None:
        (folder / "train").mkdir()
        (folder / "train" / "ids.npy").symlink_to("/dev/full")
        small_store(folder / "train", [10])

    with pytest.raises(OSError, match="No space left") as raised:
        build_once(tmp_path / "stores" / "more" / "fp", build)
    assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_open_part(tmp_path: Path) -> None:
    small_store(tmp_path / "train", [10])
    part = open_part(tmp_path, "train")
    assert part is not None
    assert part.num_rows == 1
    assert open_part(tmp_path, "validation") is None


def test_built_once_and_then_found(tmp_path: Path) -> None:
    assert build_once(tmp_path / "fp", lambda folder: small_store(folder / "train", [4]))
    assert not build_once(tmp_path / "fp", lambda folder: pytest.fail("built again"))
    assert [path.name for path in tmp_path.iterdir()] == ["fp"]


def test_of_several_processes_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    built: multiprocessing.Queue[bool] = context.Queue()
    somebody_waits = context.Event()

    def build(folder: Path) -> None:
        assert somebody_waits.wait(timeout=60)
        small_store(folder / "train", [4])

    def work() -> None:
        built.put(build_once(tmp_path / "fp", build, on_wait=lambda _: somebody_waits.set()))

    processes = [context.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    results = [built.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(results) == [False, False, True]
    Store(tmp_path / "fp" / "train").verify()
    assert [path.name for path in tmp_path.iterdir()] == ["fp"]


def test_of_two_builders_the_loser_deletes_its_own(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        small_store(folder / "train", [4])
        # Somebody who took this builder for dead publishes first.
        small_store(tmp_path / "fp", [7])

    assert not build_once(tmp_path / "fp", build)
    assert Store(tmp_path / "fp").tokens == 7
    assert [path.name for path in tmp_path.iterdir()] == ["fp"]


def test_a_dead_builders_claim_and_leftovers_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / "fp.claim").mkdir()
    (tmp_path / ".tmp-fp-1-a" / "train").mkdir(parents=True)
    (tmp_path / ".tmp-other-1-a").mkdir()
    long_ago = time.time() - 3600
    for path in tmp_path.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert build_once(tmp_path / "fp", lambda folder: small_store(folder / "train", [4]))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-other-1-a", "fp"]


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        small_store(folder / "train", [4])
        raise DataError("bad rows")

    with pytest.raises(DataError, match="bad rows"):
        build_once(tmp_path / "fp", fail)
    assert list(tmp_path.iterdir()) == []
    assert build_once(tmp_path / "fp", lambda folder: small_store(folder / "train", [4]))
