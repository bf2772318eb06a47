"""One small file per rank, rewritten every few seconds: what it does, where, and since when nothing moved. Torch-free.

    attempts/N/ranks/rank-00001.json    written by that rank only, replaced whole
    attempts/N/ranks/failure.json       why the attempt ends; whoever is first writes it, and speaks for all

A rank that is suspended or lost cannot write: the others name it by its note, which stays as it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from configs.runfolder import Attempt, process_start, process_state, read_json
from train.activity import CURRENT

ROOT = str(Path(__file__).resolve().parents[1])
# Frames in which a rank waits for others: torch's collectives, and the backward pass that ends with one.
_WAITING_FOLDERS = ("/torch/distributed/", "/deepspeed/comm/", "/torch/cuda/")
_WAITING_FUNCTIONS = ("_engine_run_backward",)
# Files that only pass on what is done elsewhere.
_RELAYS = ("/train/distributed.py", "/train/rank_notes.py")
FAILURE = "failure.json"


@dataclass(frozen=True, slots=True)
class RankNote:
    """What one rank last said of itself.

    Attributes:
        step: the update under way.
        collective: the one it was in, empty outside.
        count: of phases and collectives begun; ranks that run the same program count alike.
        still_s: seconds without any progress when the note was written.
        is_slow: in a phase that may take long without a sign.
        place: innermost line of ours on the main thread, `train/step.py:88`.
        waits: its main thread was inside a collective.
        saw_loss: it noticed that another rank was lost, and is about to leave.
        beat: counts the notes written; a note whose beat stays is stale, whatever the clocks of two machines say.
    """

    rank: int
    host: str
    pid: int
    pid_started: str | None
    step: int
    phase: str
    collective: str
    count: int
    still_s: float
    is_slow: bool
    place: str
    waits: bool
    saw_loss: bool
    beat: int

    @property
    def who(self) -> str:
        """`rank 1 (host n1, pid 4711)`."""
        return spell_rank(self.rank, self.host, self.pid)

    @property
    def doing(self) -> str:
        """The collective, or else the phase."""
        return self.collective or self.phase

    def process(self) -> str:
        """Returns `running`, `suspended`, `gone`, or `elsewhere` when it is on another machine."""
        return process_state(self.pid, self.pid_started) if self.host == socket.gethostname() else "elsewhere"


def spell_rank(rank: int, host: str, pid: int) -> str:
    """Returns `rank 1 (host n1, pid 4711)`."""
    return f"rank {rank} (host {host}, pid {pid})"


def own_note(rank: int, *, still_s: float = 0.0, saw_loss: bool = False, beat: int = 0) -> RankNote:
    """Returns the note of this process."""
    place, waits = main_thread_place()
    return RankNote(
        rank=rank,
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_started=process_start(os.getpid()),
        step=CURRENT.step,
        phase=CURRENT.phase,
        collective=CURRENT.collective,
        count=CURRENT.count,
        still_s=round(still_s, 3),
        is_slow=CURRENT.is_slow,
        place=place,
        waits=waits or bool(CURRENT.collective),
        saw_loss=saw_loss,
        beat=beat,
    )


def main_thread_place() -> tuple[str, bool]:
    """Returns (innermost line of ours, whether it waits in a collective) of the main thread."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "?", False
    code = frame.f_code
    waits = any(folder in code.co_filename for folder in _WAITING_FOLDERS) or code.co_name in _WAITING_FUNCTIONS
    return innermost_own_line(frame), waits


def innermost_own_line(frame: FrameType | None) -> str:
    """Returns `train/step.py:88`, the innermost line of the project from `frame` outward; train/distributed.py only relays."""
    innermost = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame is not None else "?"
    while frame is not None:
        if line := own_line(frame.f_code.co_filename, frame.f_lineno):
            return line
        frame = frame.f_back
    return innermost


def own_line(file: str, line: int) -> str | None:
    """Returns `train/step.py:88`; None for a line that is not the project's."""
    if not file.startswith(f"{ROOT}/") or "/site-packages/" in file or file.endswith(_RELAYS):
        return None
    return f"{file[len(ROOT) + 1 :]}:{line}"


def note_path(folder: Path, rank: int) -> Path:
    """Returns the file of one rank's notes."""
    return folder / f"rank-{rank:05d}.json"


def ranks_folder(attempt: Attempt) -> Path:
    """Returns the folder of notes of an attempt, which is there afterwards."""
    folder = attempt.path / "ranks"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def write_note(folder: Path, note: RankNote) -> None:
    """Replaces the note of a rank; not flushed to disk, as it says nothing after a crash of the machine."""
    replace_json(note_path(folder, note.rank), dataclasses.asdict(note))


def read_notes(folder: Path, world: int) -> dict[int, RankNote]:
    """Returns the notes by rank; ranks that have not written any are missing."""
    notes = {}
    for rank in range(world):
        if (value := read_json(note_path(folder, rank))) is not None:
            notes[rank] = RankNote(**value)
    return notes


def replace_json(path: Path, value: dict[str, Any]) -> None:
    """Writes `value` so that a reader sees the old file or the new one."""
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file)
    os.replace(temporary, path)


def claim_failure(folder: Path, value: dict[str, Any]) -> bool:
    """Writes failure.json unless it is there; True for the one that wrote it."""
    temporary = folder / f".tmp-{FAILURE}-{os.getpid()}-{threading.get_ident()}"
    try:
        replace_json(temporary, value)
        # A link is made or refused at once, on shared disks too.
        os.link(temporary, folder / FAILURE)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return True


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Returns what failure.json holds; None while nobody has failed."""
    return read_json(folder / FAILURE)
