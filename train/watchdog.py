"""A thread in every rank that notes what the rank does, and ends the run when no rank makes progress any more.

A wait inside gloo or NCCL cannot be interrupted, so the end is `os._exit`. Before it, every living rank writes its
Python stacks to `attempts/N/hang-HHMM/`, and one rank says which one the others wait for, where and how long. Exit code
75: the newest checkpoint is whole, and the same command continues from it.

"No progress" means that nothing was begun: no phase of a step, no collective, no batch of an evaluation. Where one rank
works alone for long (saving, replies, export) or code is compiled (the first step), five times the bound is allowed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.runfolder import Attempt, RunFolder
from train import rank_notes
from train.activity import CURRENT
from train.rank_notes import RankNote, own_note

SLOW_FACTOR = 5.0
NOTES_PER_TIMEOUT = 20.0
PLAIN_INTERVAL_S = 15.0
# A note that has not been rewritten for this many intervals is stale: its rank is suspended, lost, or out of reach.
STALE_AFTER = 2.5
EXIT_CONTINUE = 75
# After another rank has failed, a wait that no error ends (NCCL) is ended here.
LEAVE_AFTER_FAILURE_S = 20.0
MOST_NAMED = 4


class Watchdog:
    """Notes the progress of this rank, and watches that somebody makes any.

    Args:
        attempt: where notes and stacks are written.
        rank, world: this rank's place.
        timeout_s: bound on the time without progress; 0: notes only.
        hint: returns how the user goes on.
        before_leaving: puts the screen in order.
        leave: ends the process.
    """

    def __init__(
        self,
        attempt: Attempt,
        rank: int,
        world: int,
        timeout_s: float,
        *,
        hint: Callable[[RunFolder], str],
        before_leaving: Callable[[], None] = lambda: None,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self.rank, self.world = rank, world
        self.folder = rank_notes.ranks_folder(attempt)
        self.interval_s = max(1.0, timeout_s / NOTES_PER_TIMEOUT) if timeout_s else PLAIN_INTERVAL_S
        self.before_leaving = before_leaving
        self._attempt, self._timeout_s, self._hint, self._leave = attempt, timeout_s, hint, leave
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._begun, self._still_s, self._beat, self._saw_loss = -1, 0.0, 0, False
        self._last_s = time.monotonic()
        self._seen: dict[int, tuple[RankNote, float]] = {}
        self._failed_since_s: float | None = None

    def start(self) -> Watchdog:
        """Writes the first note and starts the thread; returns itself."""
        self._write_note()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=self.interval_s)

    def announce_loss(self) -> None:
        """Notes that this rank lives and has noticed the loss of another."""
        self._saw_loss = True
        self._write_note()

    def rank_names(self) -> dict[int, str]:
        """Returns `rank 1 (host n1, pid 4711)` by rank."""
        return {rank: note.who for rank, note in rank_notes.read_notes(self.folder, self.world).items()}

    def _watch(self) -> None:
        while not self._stop.wait(self.interval_s):
            # A full disk or no memory for a note must not end the watch, nor the run.
            with contextlib.suppress(OSError, MemoryError):
                self.tick(time.monotonic())

    def tick(self, now_s: float) -> None:
        """One round: notes what this rank does, looks for what others have said, and around when nothing moves."""
        # A longer gap means that this process was suspended or starved: time that nobody could use does not count.
        passed_s = min(now_s - self._last_s, 2 * self.interval_s)
        self._last_s = now_s
        if (begun := CURRENT.count + CURRENT.signs) != self._begun:
            self._begun, self._still_s = begun, 0.0
            self._seen.clear()
        else:
            self._still_s += passed_s
        self._write_note()
        failure = rank_notes.read_failure(self.folder)
        if failure is not None:
            self._follow(failure, now_s)
        elif self._timeout_s and self._still_s >= self._timeout_s / 2:
            self._look_around(now_s)

    def _write_note(self) -> None:
        with self._lock:
            self._beat += 1
            note = own_note(self.rank, still_s=self._still_s, saw_loss=self._saw_loss, beat=self._beat)
            rank_notes.write_note(self.folder, note)

    def _look_around(self, now_s: float) -> None:
        """Reads all notes; raises the alarm when every rank that lives has stood still for its bound."""
        own = own_note(self.rank, still_s=self._still_s, beat=self._beat)
        notes = {**rank_notes.read_notes(self.folder, self.world), self.rank: own}
        for rank, note in notes.items():
            if rank not in self._seen or self._seen[rank][0].beat != note.beat:
                self._seen[rank] = (note, now_s)
        if is_hanging(own, self._timeout_s, 0.0):
            living = [note for rank, note in notes.items() if rank not in self._stale(now_s)]
            if all(is_hanging(note, self._timeout_s, 2 * self.interval_s) for note in living):
                self._alarm(now_s)

    def _stale(self, now_s: float) -> set[int]:
        bound_s = STALE_AFTER * self.interval_s
        return {rank for rank, (_, since_s) in self._seen.items() if now_s - since_s > bound_s}

    def _alarm(self, now_s: float) -> None:
        notes, stale = {rank: note for rank, (note, _) in self._seen.items()}, self._stale(now_s)
        stacks = self._attempt.path / time.strftime("hang-%H%M")
        failure = {"kind": "hang", "state": "failed", "code": EXIT_CONTINUE, "stacks": str(stacks), "by": self.rank}
        if not rank_notes.claim_failure(self.folder, failure):
            self._follow(rank_notes.read_failure(self.folder) or failure, now_s)
            return
        self._dump(stacks)
        others = set(range(self.world)) - stale
        deadline = time.monotonic() + 2 * self.interval_s + 2.0
        while time.monotonic() < deadline and not all(stack_path(stacks, rank).exists() for rank in others):
            time.sleep(0.05)
        culprits, sentence = blame(notes, stale, self.world, self._still_s)
        sentence += f". Stacks: {stacks}. {self._hint(RunFolder(self._attempt.run))}"
        self._attempt.event("hang", step=CURRENT.step, ranks=culprits, stacks=str(stacks), cause=sentence)
        fields = {"rank": culprits[0]} if culprits else {}
        self._attempt.finish("failed", EXIT_CONTINUE, sentence, kind="hang", **fields)
        self._go(EXIT_CONTINUE, f"failed: {sentence}")

    def _follow(self, failure: dict[str, Any], now_s: float) -> None:
        """After another rank has spoken: adds this rank's stacks to a hang, and sees to it that this rank ends too."""
        if failure["kind"] == "hang":
            self._dump(Path(failure["stacks"]))
            deadline = time.monotonic() + 4 * self.interval_s + 5.0
            while time.monotonic() < deadline and not self._attempt.exit_path.exists():
                time.sleep(0.05)
            self._go(EXIT_CONTINUE, "")
        self._failed_since_s = self._failed_since_s or now_s
        if now_s - self._failed_since_s > LEAVE_AFTER_FAILURE_S:
            self._go(int(failure["code"]), "")

    def _dump(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            path = stack_path(folder, self.rank)
            note = own_note(self.rank, still_s=self._still_s)
            with open(os.open(path.with_suffix(".tmp"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(
                    f"{note.who}: step {note.step}, {note.phase}, collective {note.collective or 'none'}, at {note.place}, "
                    f"no progress for {note.still_s:.0f} s\n\n"
                )
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            path.with_suffix(".tmp").rename(path)

    def _go(self, code: int, last_line: str) -> None:
        with contextlib.suppress(Exception):
            self.before_leaving()
        if last_line:
            sys.stderr.write(f"{last_line}\n")
            sys.stderr.flush()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        self._leave(code)


def stack_path(folder: Path, rank: int) -> Path:
    """Returns the file of one rank's stacks."""
    return folder / f"rank-{rank:05d}.txt"


def is_hanging(note: RankNote, timeout_s: float, slack_s: float) -> bool:
    """True when a rank has stood still for its bound; `slack_s` is how old its note may be."""
    return note.still_s + slack_s >= timeout_s * (SLOW_FACTOR if note.is_slow else 1.0)


def blame(notes: Mapping[int, RankNote], stale: set[int], world: int, still_s: float) -> tuple[list[int], str]:
    """Returns the ranks that the others wait for, and one sentence that names them.

    In order: ranks whose notes are stale; those outside any collective while others are inside; those that have begun
    less than the others. When all ranks are alike none can be singled out.
    """
    culprits = sorted(stale)
    if not culprits and 0 < len([n for n in notes.values() if n.waits]) < len(notes):
        culprits = sorted(rank for rank, note in notes.items() if not note.waits)
    if not culprits:
        most = max(note.count for note in notes.values())
        culprits = sorted(rank for rank, note in notes.items() if note.count < most)
    missing = sorted(set(range(world)) - set(notes))
    waiting = [note for rank, note in notes.items() if rank not in culprits]
    if not culprits and not missing:
        note = notes[min(notes)]
        alike = "the rank" if world == 1 else f"all {world} ranks"
        return [], f"{alike} stopped in {note.doing} at step {note.step}: {note.place}, no progress for {still_s:.0f} s"
    names = [_spell_culprit(notes[rank], rank in stale) for rank in culprits[:MOST_NAMED]]
    names += [f"rank {rank} (it has never written a note)" for rank in missing[: MOST_NAMED - len(names)]]
    more = len(culprits) + len(missing) - len(names)
    text = "; ".join(names) + (f"; and {more} more" if more > 0 else "")
    if waiting:
        note = waiting[0]
        ranks = "1 rank waits" if len(waiting) == 1 else f"{len(waiting)} ranks wait"
        text += f"; {ranks} for it in {note.doing}: {note.place}, no progress for {still_s:.0f} s"
    return culprits or missing, text


def _spell_culprit(note: RankNote, is_stale: bool) -> str:
    at = f"at step {note.step} in {note.phase}"
    process = note.process() if is_stale else "running"
    if process == "suspended":
        return f"{note.who} stopped answering {at}: its process is suspended"
    if process == "gone":
        return f"{note.who} is gone since {at.removeprefix('at ')}"
    if is_stale:
        return f"{note.who} stopped answering {at}"
    return f"{note.who} stands still {at}: {note.place}"
