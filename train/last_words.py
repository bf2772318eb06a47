"""One sentence for a run that fails, from the rank that failed, however many ranks see it.

The rank that fails first puts its failure on a board, says it and writes exit.json; the others find it there and leave
without a word, with the same exit code. A rank that was killed leaves no failure: a survivor names it.

The board is a file of the attempt (train/rank_notes.py). Before there is an attempt it is the store through which the
ranks found each other; before that, each rank speaks for itself.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import threading
import time
import traceback
from pathlib import Path
from tempfile import mkstemp
from typing import Any, Protocol

import torch.distributed as dist

from configs.errors import AlreadyTold, RunFailed, UserError
from configs.runfolder import Attempt, RunFolder
from train import failures, rank_notes
from train.failures import Failure
from train.rank_notes import RankNote, own_note
from train.watchdog import Watchdog

# A rank that fails by itself says so before its connections close, so its word is there at once.
MOMENT_S = 1.0
GRACE_S = 5.0
# Leaving must not hang either, in a destructor that waits for lost ranks: then the kernel ends the process.
LEAVE_WITHIN_S = 30
_POLL_S = 0.05
_STORE_TIMEOUT_S = 5.0


class Board(Protocol):
    """Where ranks leave word for each other."""

    grace_s: float

    def claim(self, failure: dict[str, Any]) -> bool:
        """Puts up the failure unless there is one; True for the rank that put it up."""
        ...

    def read(self) -> dict[str, Any] | None:
        """Returns the failure that is up."""
        ...

    def announce_loss(self) -> None:
        """Says that this rank is alive and has noticed the loss of another."""
        ...

    def gone(self) -> list[RankNote]:
        """Returns the ranks whose processes are certainly gone."""
        ...

    def silent(self) -> list[RankNote]:
        """Returns the ranks that have not been heard of since this rank noticed a loss."""
        ...


class FileBoard:
    """The folder `ranks` of an attempt."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.grace_s = max(GRACE_S, 2.5 * watchdog.interval_s)
        self._watchdog = watchdog
        self._before: dict[int, RankNote] = {}

    def claim(self, failure: dict[str, Any]) -> bool:
        """Puts up the failure unless there is one."""
        return rank_notes.claim_failure(self._watchdog.folder, failure)

    def read(self) -> dict[str, Any] | None:
        """Returns the failure that is up."""
        return rank_notes.read_failure(self._watchdog.folder)

    def announce_loss(self) -> None:
        """Writes a note that says so."""
        self._before = self._others()
        self._watchdog.announce_loss()

    def gone(self) -> list[RankNote]:
        """Returns the ranks of this machine whose processes are gone."""
        return [note for note in self._others().values() if not note.saw_loss and note.process() == "gone"]

    def silent(self) -> list[RankNote]:
        """Returns the ranks whose notes are those of before."""
        return [note for rank, note in self._others().items() if self._before.get(rank) == note and not note.saw_loss]

    def _others(self) -> dict[int, RankNote]:
        notes = rank_notes.read_notes(self._watchdog.folder, self._watchdog.world)
        return {rank: note for rank, note in notes.items() if rank != self._watchdog.rank}


class StoreBoard:
    """The store of the process group, or of torchrun; there is no folder yet."""

    grace_s = GRACE_S

    def __init__(self, store: Any, rank: int, world: int) -> None:
        # A group restarted by torchrun meets in the same store.
        prefix = f"aisc/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._store = dist.distributed_c10d.PrefixStore(prefix, store)
        self._rank, self._world = rank, world

    def introduce(self) -> None:
        """Leaves this rank's name, for the case that it is lost."""
        self._store.set(f"who/{self._rank}", json.dumps([socket.gethostname(), os.getpid()]))

    def claim(self, failure: dict[str, Any]) -> bool:
        """Puts up the failure unless there is one."""
        if self._store.add("claims", 1) > 1:
            return False
        self._store.set("failure", json.dumps(failure))
        return True

    def read(self) -> dict[str, Any] | None:
        """Returns the failure that is up."""
        if not self._store.check(["failure"]):
            return None
        value: dict[str, Any] = json.loads(self._store.get("failure"))
        return value

    def announce_loss(self) -> None:
        """Leaves a mark."""
        self._store.set(f"saw loss/{self._rank}", "")

    def gone(self) -> list[RankNote]:
        """Nothing is certain here."""
        return []

    def silent(self) -> list[RankNote]:
        """Returns the ranks without a mark."""
        found = []
        for rank in range(self._world):
            if rank != self._rank and not self._store.check([f"saw loss/{rank}"]) and self._store.check([f"who/{rank}"]):
                host, pid = json.loads(self._store.get(f"who/{rank}"))
                found.append(RankNote(rank, host, pid, None, 0, "start", "", 0, 0.0, True, "?", False, False, 0))
        return found


class LastWords:
    """What this rank does when its run fails.

    Args:
        rank, world: its place.
        run: the run's folder, for the way on.
    """

    def __init__(self, rank: int, world: int, run: RunFolder) -> None:
        self._rank, self._world, self._run = rank, world, run
        self._attempt: Attempt | None = None
        self._board: Board | None = _agent_board(rank, world) if world > 1 else None
        self._said: BaseException | None = None

    def join(self) -> None:
        """Takes the store of the process group as board; call it once the group is there."""
        if self._world > 1:
            board = StoreBoard(dist.distributed_c10d._get_default_store(), self._rank, self._world)
            board.introduce()
            self._board = board

    def take(self, attempt: Attempt, watchdog: Watchdog) -> None:
        """Takes the attempt's folder as board; exit.json is written there."""
        self._attempt = attempt
        self._run = RunFolder(attempt.run)
        if self._world > 1:
            self._board = FileBoard(watchdog)

    def end(self, error: BaseException) -> BaseException:
        """Records the failure, once for all ranks; returns what to raise: the sentence, or AlreadyTold."""
        if self._said is not None or isinstance(error, (SystemExit, AlreadyTold)):
            return error if self._said is None else self._said
        if self._world > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LEAVE_WITHIN_S + int(self._board.grace_s if self._board else 0))
        self._said = self._end(error)
        return self._said

    def _end(self, error: BaseException) -> BaseException:
        me = own_note(self._rank)
        is_known = isinstance(error, (UserError, RunFailed, KeyboardInterrupt))
        log = None if is_known else failures.write_traceback(self._log_path(), error)
        failure = self._explain(error, me, log)
        # The frames hold tensors: after running out of memory there would be none left for the report.
        traceback.clear_frames(error.__traceback__)
        if isinstance(failure, AlreadyTold):
            return failure
        if not self._claims(failure):
            return AlreadyTold(self._code_of_word(failure.code))
        if self._attempt is not None:
            with contextlib.suppress(OSError):
                fields = {"kind": failure.kind} if failure.rank is None else {"kind": failure.kind, "rank": failure.rank}
                self._attempt.finish(failure.state, failure.code, failure.sentence, **fields)
        return error if is_known else RunFailed(failure.sentence)

    def _explain(self, error: BaseException, me: RankNote, log: Path | None) -> Failure | AlreadyTold:
        hint = failures.continuing_hint(self._run)
        if isinstance(error, KeyboardInterrupt):
            return Failure("interrupt", "failed", failures.EXIT_FAILED, "KeyboardInterrupt")
        if self._board is None or not failures.is_lost_peer(error):
            return failures.explain(error, me, log, hint)
        found = self._word_or_lost(self._board)
        if isinstance(found, dict):
            return AlreadyTold(self._await_exit(int(found["code"])))
        return failures.explain_loss(found, me, error, hint)

    def _word_or_lost(self, board: Board) -> dict[str, Any] | list[RankNote]:
        """Waits a moment; returns the failure that another rank has put up, or the ranks that are lost without one."""
        began = time.monotonic()
        try:
            board.announce_loss()
            while (waited := time.monotonic() - began) < board.grace_s:
                if (word := board.read()) is not None:
                    return word
                if waited >= MOMENT_S and (gone := board.gone()):
                    return gone
                time.sleep(_POLL_S)
            return board.silent()
        except (OSError, RuntimeError):  # the store went with the rank that held it, which is the first
            return []

    def _claims(self, failure: Failure) -> bool:
        if self._board is None:
            return True
        try:
            return self._board.claim({**failure.to_json(), "by": self._rank})
        except (OSError, RuntimeError):
            return True  # said twice is better than not at all

    def _code_of_word(self, default: int) -> int:
        word = self._board.read() if self._board is not None else None
        return self._await_exit(int(word["code"]) if word else default)

    def _await_exit(self, code: int) -> int:
        """Waits a moment for exit.json, so that what follows (the report) finds it."""
        deadline = time.monotonic() + GRACE_S
        while self._attempt is not None and not self._attempt.exit_path.exists() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return code

    def _log_path(self) -> Path:
        if self._attempt is not None:
            return self._attempt.log_dir / f"rank-{self._rank:05d}.log"
        descriptor, name = mkstemp(prefix=f"aisc-rank-{self._rank:05d}-", suffix=".log")
        os.close(descriptor)
        return Path(name)


def _agent_board(rank: int, world: int) -> StoreBoard | None:
    """Returns a board in torchrun's own store, which is there before the process group; None without torchrun."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    try:
        port, timeout = int(os.environ["MASTER_PORT"]), datetime.timedelta(seconds=_STORE_TIMEOUT_S)
        store = dist.TCPStore(os.environ["MASTER_ADDR"], port, world, False, timeout)  # type: ignore[attr-defined]
    except (RuntimeError, KeyError, ValueError):
        return None
    return StoreBoard(store, rank, world)
