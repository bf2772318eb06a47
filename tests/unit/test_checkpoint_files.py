"""The checkpoint format and its protocol, without torch: written, verified, damaged, retired, superseded."""

from __future__ import annotations

import json
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from configs.atomic import sha256_file
from configs.errors import CheckpointError, RunFailed
from configs.runfolder import Attempt, RunFolder, Superseded, read_events
from tests.kills import saver
from train.checkpoint_files import Ranks, Saved, sealed_json, unseal_json
from train.checkpoint_reading import begin_attempt, checkpoint_of, find_latest, open_checkpoint, retire
from train.shard_files import Block, SafetensorsFile, assemble, write_safetensors
from train.shard_plan import BlockSpec, flat_rectangles, make_index, share_blocks

FILES = ("rank-00000.safetensors", "index.json", "state.json", "manifest.json")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def begin(run: RunFolder) -> Attempt:
    return begin_attempt(run, {})[0]


def on_ranks(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """Runs `work` as `size` ranks, one thread each, that gather among themselves; returns results or exceptions."""
    barrier = threading.Barrier(size, timeout=30)
    slots: list[Any] = [None] * size
    results: list[Any] = [None] * size

    def one(rank: int) -> None:
        def gather(value: Any) -> list[Any]:
            slots[rank] = json.dumps(value)
            barrier.wait()
            everything = [json.loads(slot) for slot in slots]
            barrier.wait()
            return everything

        try:
            results[rank] = work(Ranks(rank, size, gather))
        except (RunFailed, RuntimeError) as error:
            results[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    blocks = saver.blocks_of(3) | {"empty": Block.whole(np.zeros((0, 4), np.float64), "F64")}
    written = write_safetensors(tmp_path / "a.safetensors", blocks)
    assert written.size == (tmp_path / "a.safetensors").stat().st_size
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o600
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == sorted(blocks)
        for name, block in blocks.items():
            tensor = file.get_tensor(name)
            assert tuple(tensor.shape) == block.data.shape
            assert tensor.flatten().contiguous().view(torch_uint8()).numpy().tobytes() == block.data.tobytes()
    ours = SafetensorsFile(tmp_path / "a.safetensors")
    for name, block in blocks.items():
        np.testing.assert_array_equal(ours.read(name), block.data)


def torch_uint8() -> Any:
    import torch

    return torch.uint8


def test_what_is_saved_is_found_and_read(run: RunFolder) -> None:
    attempt = begin(run)
    for step in (1, 2):
        saver.save(run, attempt, step)
    checkpoint, skipped = find_latest(run)
    assert checkpoint is not None and checkpoint.step == 2 and not skipped
    saver.check(checkpoint)
    assert sorted(path.name for path in checkpoint.folder.iterdir()) == sorted(FILES)
    assert checkpoint.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in checkpoint.folder.iterdir()} == {0o600}
    checkpoint = checkpoint_of(run, 2)
    window = checkpoint.read("model.embed.weight", ((10, 2), (3, 4)))
    np.testing.assert_array_equal(window, saver.blocks_of(2)["model.embed.weight"].data[10:13, 2:6])
    assert checkpoint.unread(("model.",)) == ["model.norm.weight"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "flipped", "longer"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_skipped_by_name(run: RunFolder, name: str, damage: str) -> None:
    attempt = begin(run)
    saver.save(run, attempt, 1)
    saver.save(run, attempt, 2)
    folder = attempt.checkpoints / "step-00000002"
    path = folder / name
    data = path.read_bytes()
    places = range(0, 8 * len(data), max(1, 8 * len(data) // 97)) if damage == "flipped" else [0]
    for place in places:
        if damage == "missing":
            path.unlink()
        elif damage == "flipped":
            byte, bit = divmod(place, 8)
            path.write_bytes(data[:byte] + bytes([data[byte] ^ (1 << bit)]) + data[byte + 1 :])
        else:
            path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "longer": data + b" "}[damage])
        checkpoint, skipped = find_latest(run)
        assert checkpoint is not None and checkpoint.step == 1, f"bit {place} of {name}"
        saver.check(checkpoint)
        assert len(skipped) == 1
        assert skipped[0].sentence.startswith(f"skipped damaged checkpoint {folder}: {name} ")
    _, checkpoint, _ = begin_attempt(run, {})
    assert checkpoint is not None and checkpoint.step == 1
    assert [event["event"] for event in read_events(run.path)] == ["checkpoint_skipped"]
    second = run.attempts()[-1]
    assert second.parent() == checkpoint.parent
    saver.save(run, second, 2)
    assert find_latest(run)[0].folder == second.checkpoints / "step-00000002"  # type: ignore[union-attr]


def test_when_every_checkpoint_is_damaged_nothing_starts_afresh(run: RunFolder) -> None:
    attempt = begin(run)
    for step in (1, 2):
        saver.save(run, attempt, step)
        (attempt.checkpoints / f"step-0000000{step}" / "state.json").write_text("{}")
    message = "(?s)step-00000002: state.json .*step-00000001.*no checkpoint .* is intact"
    with pytest.raises(CheckpointError, match=message):
        begin_attempt(run, {})


def test_a_checkpoint_of_another_name_or_format_is_not_used(run: RunFolder) -> None:
    attempt = begin(run)
    saver.save(run, attempt, 1)
    folder = attempt.checkpoints / "step-00000001"
    folder.rename(attempt.checkpoints / "step-00000009")
    with pytest.raises(CheckpointError, match="manifest.json is that of step 1"):
        open_checkpoint(attempt.checkpoints / "step-00000009", 1)


def test_a_rewritten_parent_is_noticed(run: RunFolder) -> None:
    first = begin(run)
    saver.save(run, first, 1)
    saver.save(run, first, 2)
    begin(run)  # continues from step 2, and writes its hash into start.json
    os.rename(first.checkpoints / "step-00000002", first.checkpoints / ".tmp-gone")
    blocks = saver.blocks_of(2)
    run_alone = Attempt(run.path / "..", 1)  # a writer that cannot see that it is superseded
    os.makedirs(run_alone.checkpoints)
    saved = saver.save_blocks(run_alone, 2, blocks, {"step": 2, "ledger": "other"}, Ranks.single())
    os.rename(saved.folder, first.checkpoints / "step-00000002")
    checkpoint, skipped = find_latest(run)
    assert checkpoint is not None and checkpoint.step == 1
    assert "is not the one that a later attempt continued from" in skipped[0].reason


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_ranks_share_replicated_tensors_and_any_rank_count_reads_them(run: RunFolder, size: int) -> None:
    attempt = begin(run)
    blocks = saver.blocks_of(4)
    state = {"step": 4, "ledger": "head-4"}
    results = on_ranks(size, lambda ranks: saver.save_blocks(attempt, 4, blocks, state, ranks))
    assert all(isinstance(result, Saved) for result in results), results
    checkpoint = checkpoint_of(run, 4)
    saver.check(checkpoint)
    assert checkpoint.ranks == size
    held = [SafetensorsFile(checkpoint.folder / f"rank-{rank:05d}.safetensors").names() for rank in range(size)]
    assert sorted(name for names in held for name in names) == sorted(blocks), "each tensor is written once"


@pytest.mark.parametrize("cuts", [[0, 100], [0, 40, 100], [0, 40, 40, 77, 100]])
def test_sharded_tensors_are_put_together(run: RunFolder, cuts: list[int]) -> None:
    attempt = begin(run)
    whole = saver.blocks_of(4)["model.embed.weight"].data

    def work(ranks: Ranks) -> Saved:
        low, high = cuts[ranks.rank], cuts[ranks.rank + 1]
        return saver.save_blocks(attempt, 4, {"model.w": Block(whole[low:high], "F32", (100, 6), (low, 0))}, {}, ranks)

    on_ranks(len(cuts) - 1, work)
    checkpoint = checkpoint_of(run, 4)
    np.testing.assert_array_equal(checkpoint.read("model.w"), whole)
    np.testing.assert_array_equal(checkpoint.read("model.w", ((30, 1), (60, 3))), whole[30:90, 1:4])
    for start, stop in ((0, 600), (0, 0), (7, 8), (235, 250), (239, 467), (600, 600)):
        np.testing.assert_array_equal(checkpoint.read_flat("model.w", start, stop), whole.reshape(-1)[start:stop])


@pytest.mark.parametrize("cuts", [[0, 60], [0, 7, 60], [0, 29, 31, 60], [0, 5, 5, 44, 60]])
def test_flat_ranges_give_several_blocks_of_a_tensor_to_one_rank(run: RunFolder, cuts: list[int]) -> None:
    attempt = begin(run)
    whole = np.arange(60, dtype=np.float32).reshape(3, 4, 5)

    def work(ranks: Ranks) -> Saved:
        low, high = cuts[ranks.rank], cuts[ranks.rank + 1]
        blocks, position = [], low
        for offsets, shape in flat_rectangles(whole.shape, low, high):
            size = int(np.prod(shape))
            part = whole.reshape(-1)[position : position + size].reshape(shape)
            blocks.append(Block(part, "F32", whole.shape, offsets))
            position += size
        return saver.save_blocks(attempt, 4, {"model.w": blocks}, {}, ranks)

    results = on_ranks(len(cuts) - 1, work)
    assert all(isinstance(result, Saved) for result in results), results
    checkpoint = checkpoint_of(run, 4)
    assert checkpoint.shape("model.w") == (3, 4, 5)
    np.testing.assert_array_equal(checkpoint.read("model.w"), whole)
    for start in range(0, 61, 3):
        for stop in range(start, 61, 7):
            np.testing.assert_array_equal(checkpoint.read_flat("model.w", start, stop), whole.reshape(-1)[start:stop])
    keys = [block["key"] for block in checkpoint.index["tensors"]["model.w"]["blocks"]]
    assert "model.w" in keys and all(key == "model.w" or key.startswith("model.w@") for key in keys)


def test_a_flat_read_touches_only_its_own_pages(run: RunFolder) -> None:
    attempt = begin(run)
    whole = np.zeros((4096, 1024), np.float32)  # 16 MiB
    saver.save_blocks(attempt, 1, {"model.w": Block.whole(whole, "F32")}, {}, Ranks.single())
    checkpoint = checkpoint_of(run, 1)
    checkpoint.read_flat("model.w", 0, 1)  # opens the file
    before = resident_bytes()
    checkpoint.read_flat("model.w", 2_000_000, 2_001_000)
    assert resident_bytes() - before < 4 * 2**20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_checkpoint_of_the_format_before_is_read(run: RunFolder) -> None:
    attempt = begin(run)
    saver.save(run, attempt, 1)
    folder = attempt.checkpoints / "step-00000001"
    index = json.loads((folder / "index.json").read_bytes())
    for tensor in index["tensors"].values():
        for block in tensor["blocks"]:
            del block["key"]
    (folder / "index.json").write_text(json.dumps(index))
    manifest = unseal_json((folder / "manifest.json").read_bytes())
    manifest["format"] = 1
    manifest["files"]["index.json"] = {
        "bytes": (folder / "index.json").stat().st_size,
        "sha256": sha256_file(folder / "index.json"),
    }
    (folder / "manifest.json").write_bytes(sealed_json(manifest))
    saver.check(checkpoint_of(run, 1))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([0, 4], "do not cover it exactly once"), ([0, 2], "do not cover it exactly once"), ([0, 3], None)],
)
def test_holes_and_overlaps_are_refused(offsets: list[int], message: str | None) -> None:
    shares = [[BlockSpec("w", "F32", (3, 2), (6, 2), (start, 0))] for start in offsets]
    if message is None:
        assert make_index(share_blocks(shares))["ranks"] == 2
        return
    with pytest.raises(RuntimeError, match=message):
        make_index(share_blocks(shares))


def test_a_tensor_that_lacks_elements_is_never_filled_in() -> None:
    with pytest.raises(CheckpointError, match="w: 4 of 6 elements are in the files"):
        assemble("w", np.empty(6, np.float32), (0,), [((0,), np.zeros(4, np.float32))])


def test_an_absent_tensor_is_an_error(run: RunFolder) -> None:
    saver.save(run, begin(run), 1)
    with pytest.raises(CheckpointError, match="has no tensor optimizer.norm.exp_avg.*Nothing was started afresh"):
        checkpoint_of(run, 1).read("optimizer.norm.exp_avg")


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Lets the system refuse, for real, files above a size, as a full disk or a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [1, 3])
def test_a_full_disk_is_said_on_every_rank_and_costs_nothing(
    run: RunFolder, size: int, small_files: Callable[[int], None]
) -> None:
    attempt = begin(run)
    saver.save(run, attempt, 1)
    small_files(2000)
    blocks = saver.blocks_of(2)
    results = on_ranks(size, lambda ranks: saver.save_blocks(attempt, 2, blocks, {}, ranks))
    small_files(resource.RLIM_INFINITY)
    for result in results:
        assert isinstance(result, RunFailed)
        said = str(result)
        who, said = said.split(": ", 1) if size > 1 else ("", said)
        assert who.startswith("rank 0 (host ") == (size > 1)
        assert said.startswith(f"disk full while saving step 2 in {attempt.checkpoints}: the checkpoint needs 2,480 ")
        assert "are free" in said and "Older checkpoints are untouched" in said
    assert os.listdir(attempt.checkpoints) == ["step-00000001"]
    saver.check(checkpoint_of(run, 1))
    saver.save(run, attempt, 2)
    assert find_latest(run)[0].step == 2  # type: ignore[union-attr]


def test_retention_keeps_the_best_and_the_newest(run: RunFolder) -> None:
    first = begin(run)
    for step in (1, 2, 3):
        saver.save(run, first, step, keep=9)
    second = begin(run)
    saver.save_blocks(first_without_successor(first), 4, saver.blocks_of(4), {}, Ranks.single())  # off the chain
    for step in (4, 5):
        saver.save_blocks(second, step, saver.blocks_of(step), {"ledger": f"head-{step}"}, Ranks.single())
    removed = retire(run, second, keep=2, best_step=1)
    left = {path.relative_to(run.path / "attempts").as_posix() for path in run.path.glob("attempts/*/checkpoints/*")}
    assert left == {f"1/checkpoints/{name(1)}", f"2/checkpoints/{name(4)}", f"2/checkpoints/{name(5)}"}
    assert len(removed) == 3
    assert checkpoint_of(run, 1).attempt == 1


def name(step: int) -> str:
    return f"step-{step:08d}"


def first_without_successor(attempt: Attempt) -> Attempt:
    """Returns the attempt as a process that was stopped between its last look and its rename still has it."""

    class Blind(Attempt):
        __slots__ = ()

        def successor(self) -> int | None:
            return None

    return Blind(attempt.run, attempt.number)


def test_retention_deletes_nothing_when_what_it_would_keep_is_not_whole(run: RunFolder) -> None:
    attempt = begin(run)
    for step in (1, 2):
        saver.save(run, attempt, step)
    (attempt.checkpoints / name(2) / "rank-00000.safetensors").write_bytes(b"")
    assert retire(run, attempt, keep=1, best_step=None) == []
    saver.check(checkpoint_of(run, 1))


def test_a_superseded_attempt_saves_and_deletes_nothing(run: RunFolder) -> None:
    first = begin(run)
    for step in (1, 2):
        saver.save(run, first, step)
    begin(run)
    before = sorted(run.path.rglob("*"))
    results = on_ranks(2, lambda ranks: saver.save_blocks(first, 3, saver.blocks_of(3), {}, ranks))
    assert all(isinstance(result, Superseded) for result in results)
    with pytest.raises(Superseded):
        retire(run, first, keep=1, best_step=None)
    assert sorted(run.path.rglob("*")) == before


def test_what_a_stale_writer_publishes_late_is_not_on_the_chain(run: RunFolder) -> None:
    first = begin(run)
    saver.save(run, first, 1)
    second = begin(run)
    saver.save(run, first_without_successor(first), 2, keep=9)
    checkpoint, _ = find_latest(run)
    assert checkpoint is not None and (checkpoint.attempt, checkpoint.step) == (1, 1)
    third = begin(run)
    assert third.parent() == second.parent()
