"""Errors become one sentence each: what happened to which rank, where, what to do; and who says it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from configs.errors import AlreadyTold, ConfigError, RunFailed
from configs.runfolder import RunFolder, Superseded, read_json
from tests.unit.test_watchdog import note
from train import activity, failures
from train.failures import explain, explain_loss, is_lost_peer, is_out_of_memory
from train.last_words import LastWords
from train.rank_notes import own_note
from train.watchdog import Watchdog

MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)"
    ),
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
PEERS = [
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:43217",
    "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 8000ms for recv operation to complete",
    "NCCL error in: NCCLUtils.hpp:268, remote process exited or there was a network error",
]


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_no_memory_is_known_and_has_a_remedy(error: BaseException) -> None:
    assert is_out_of_memory(error) and not is_lost_peer(error)
    found = explain(error, note(1, collective="", host="n1"), None, "Go on.")
    assert found.kind == "memory" and found.rank == 1
    assert found.sentence.startswith("rank 1 (host n1, pid 4001) ran out of memory in forward of step 12")
    assert "training.micro_batch_size" in found.sentence


def test_what_was_asked_for_is_said() -> None:
    asked = [explain(error, note(1), None, "").sentence for error in MEMORY[:2]]
    assert "(it asked for 20.00 GiB)" in asked[0] and "(it asked for 1099511627776 bytes)" in asked[1]


@pytest.mark.parametrize("text", PEERS)
def test_a_lost_peer_is_known(text: str) -> None:
    assert is_lost_peer(RuntimeError(text))


@pytest.mark.parametrize(
    "error", [RuntimeError("The size of tensor a (3) must match"), ValueError("gloo"), KeyError("Connection closed by peer")]
)
def test_other_errors_are_no_lost_peer(error: BaseException) -> None:
    assert not is_lost_peer(error)


def test_the_lost_rank_is_named_by_its_last_note() -> None:
    found = explain_loss([note(1)], own_note(0), RuntimeError(PEERS[0]), "Go on.")
    assert found.sentence.startswith("rank 1 (host n1, pid 4001) was killed: no word since forward of step 12; rank 0")
    assert found.rank == 1 and "Go on." in found.sentence


@pytest.mark.parametrize(
    ("error", "code", "state"),
    [(ConfigError("bad"), 2, "failed"), (RunFailed("bad"), 1, "failed"), (Superseded("bad"), 1, "superseded")],
)
def test_known_errors_keep_their_words(error: BaseException, code: int, state: str) -> None:
    found = explain(error, note(0), None, "Go on.")
    assert (found.sentence, found.code, found.state) == ("bad", code, state)


def test_an_unexpected_error_is_one_sentence_and_its_traceback_a_private_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    attempt = run.claim()
    attempt.write_start({}, None)
    activity.begin_step(7)
    words = LastWords(0, 1, run)
    words.take(attempt, Watchdog(attempt, 0, 1, 0.0, hint=failures.continuing_hint))
    try:
        {}["key"]  # type: ignore[index]
    except KeyError as error:
        said = words.end(error)
    log = attempt.log_dir / "rank-00000.log"
    assert isinstance(said, RunFailed) and str(log) in str(said) and "\n" not in str(said)
    assert "failed in data of step 7" in str(said) and "KeyError: 'key'" in str(said)
    assert "starts from the beginning" in str(said)
    assert "Traceback" in log.read_text() and log.stat().st_mode & 0o777 == 0o600
    end = read_json(attempt.exit_path)
    assert end is not None and (end["state"], end["code"], end["kind"], end["cause"]) == ("failed", 1, "error", str(said))
    assert words.end(ValueError("another")) is said


def test_the_first_rank_speaks_for_all(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    attempt = run.claim()
    attempt.write_start({}, None)
    ranks = []
    for rank in range(2):
        words = LastWords(rank, 2, run)
        words.take(attempt, Watchdog(attempt, rank, 2, 0.0, hint=failures.continuing_hint))
        ranks.append(words)
    first = ConfigError("the same on all ranks")
    assert ranks[1]._end(first) is first
    second = ranks[0]._end(ConfigError("the same on all ranks"))
    assert isinstance(second, AlreadyTold) and second.code == 2
    survivor = LastWords(0, 2, run)
    survivor.take(attempt, Watchdog(attempt, 0, 2, 0.0, hint=failures.continuing_hint))
    told = survivor._end(RuntimeError(PEERS[0]))
    assert isinstance(told, AlreadyTold) and told.code == 2
    assert read_json(attempt.exit_path)["cause"] == "the same on all ranks"  # type: ignore[index]
