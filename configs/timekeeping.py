"""Which steps attempts have made, and the file that says where their time went. Standard library only."""

from __future__ import annotations

from pathlib import Path

from configs.jsonlines import read_last_line
from configs.runfolder import Attempt, RunFolder

# In the order in which a person reads them. Queue is no part: nobody pays for waiting.
PHASES = ("start-up", "prepare", "compile", "train", "evaluate", "save", "redone", "lost", "tail")
# Of attempts that were made before phases were written.
UNKNOWN = "unknown"


def phases_path(attempt: Attempt) -> Path:
    """Returns the file with one line per change of phase; train/phases.py says what they mean."""
    return attempt.path / "phases.jsonl"


def made_step(run: Path, *, below: int | None = None) -> int:
    """Returns the highest step that any attempt has made, saved or not; only attempts with numbers lower than `below`."""
    attempts = [a for a in RunFolder(run).attempts() if below is None or a.number < below]
    return max((int(line["step"]) for a in attempts if (line := read_last_line(a.ledger_path))), default=0)
