"""Why a rank cannot go on, in one sentence: what happened, where, what to do. The traceback goes to the rank's log."""

from __future__ import annotations

import errno
import os
import re
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from configs.errors import RunFailed, UserError
from configs.runfolder import RunFolder, Superseded
from train.checkpoint_reading import candidates
from train.rank_notes import RankNote, own_line

EXIT_FAILED, EXIT_INPUT, EXIT_CONTINUE = 1, 2, 75
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|Cannot allocate memory|bad_alloc", re.I)
_TRIED = re.compile(r"[Tt]ried to allocate ([0-9.]+ ?\w+)")
_NO_ANSWER = re.compile(
    r"gloo|nccl|Connection (closed|reset|refused)|Broken pipe|Socket|TCPStore|Timed out waiting|remote process exited", re.I
)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt ends badly; what exit.json holds and one rank says.

    Attributes:
        kind: input, failed, superseded, memory, disk, error, lost or hang.
        state: of the attempt.
        code: exit code of every rank.
        sentence: for the user.
        rank: the one it began with, when that is known.
    """

    kind: str
    state: str
    code: int
    sentence: str
    rank: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the fields."""
        return asdict(self)


def explain(error: BaseException, me: RankNote, log: Path | None, hint: str) -> Failure:
    """Returns what to say of an error that began on this rank.

    Args:
        error: any but the loss of another rank.
        me: what this rank was doing.
        log: where the traceback was put.
        hint: how the user goes on.
    """
    if isinstance(error, Superseded):
        return Failure("superseded", "superseded", EXIT_FAILED, str(error))
    if isinstance(error, UserError):
        return Failure("input", "failed", EXIT_INPUT, str(error))
    if isinstance(error, RunFailed):
        return Failure("failed", "failed", EXIT_FAILED, str(error))
    where = f"in {me.doing} of step {me.step}" if me.step else f"in {me.doing}"
    if is_out_of_memory(error):
        tried = _TRIED.search(str(error))
        asked = f" (it asked for {tried[1]})" if tried else ""
        return Failure(
            "memory",
            "failed",
            EXIT_FAILED,
            f"{me.who} ran out of memory {where}{asked}. Try a smaller training.micro_batch_size, "
            f"training.gradient_checkpointing=full, or an engine that shards more: engine.name=auto. {hint}",
            me.rank,
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        file = f": {error.filename}" if error.filename else ""
        text = f"{me.who} found the disk full {where}{file}. Make room. {hint}"
        return Failure("disk", "failed", EXIT_FAILED, text, me.rank)
    said = f"{type(error).__name__}: {first_line(error)}"
    trace = f"; its traceback: {log}" if log is not None else ""
    text = f"{me.who} failed {where}, {last_own_line(error)}: {said}{trace}. {hint}"
    return Failure("error", "failed", EXIT_FAILED, text.rstrip(), me.rank)


def explain_loss(lost: list[RankNote], me: RankNote, error: BaseException, hint: str) -> Failure:
    """Returns what a surviving rank says of those that are gone without a word; `lost` is empty when none is missed."""
    seen = f"{me.who} noticed in {me.doing}: {last_own_line(error)}"
    if not lost:
        text = f"the ranks lost each other ({first_line(error)}); {seen}. {hint}"
        return Failure("lost", "failed", EXIT_FAILED, text)
    names = ", ".join(note.who for note in lost)
    was = "was" if len(lost) == 1 else "were"
    text = (
        f"{names} {was} killed: no word since {lost[0].phase} of step {lost[0].step}; {seen}. {hint} "
        "If nobody killed it, ask the kernel about its memory: dmesg | grep -i 'killed process'"
    )
    return Failure("lost", "failed", EXIT_FAILED, text, lost[0].rank)


def is_out_of_memory(error: BaseException) -> bool:
    """True for torch's and Python's errors about memory of GPU or machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def is_lost_peer(error: BaseException) -> bool:
    """True when a collective or the rendezvous failed, which another rank has caused."""
    if isinstance(error, (torch.distributed.DistNetworkError, torch.distributed.DistBackendError)):
        return not is_out_of_memory(error)
    return type(error) is RuntimeError and not is_out_of_memory(error) and bool(_NO_ANSWER.search(str(error)))


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, shortened."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if len(line) <= 300 else line[:299] + "…"


def last_own_line(error: BaseException) -> str:
    """Returns the innermost line of ours that the error passed, `train/step.py:88`."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [line for frame in frames if (line := own_line(frame.filename, frame.lineno or 0))]
    return lines[-1] if lines else "outside aisc's code"


def write_traceback(path: Path, error: BaseException) -> Path | None:
    """Appends the traceback to the private file `path`; returns it, None when it cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return None
    return path


def continuing_hint(run: RunFolder) -> str:
    """Returns where the same command goes on: at the newest checkpoint, which a start verifies before it uses it."""
    try:
        newest = next(iter(candidates(run.chain())), None)
    except (OSError, UserError):
        return "The same command continues."
    if newest is None:
        return "Nothing was saved yet: the same command starts from the beginning."
    return f"The same command continues from step {newest[1]}."
