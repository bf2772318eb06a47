"""Which steps attempts have made, and the file that says where their time went. Standard library only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from configs.jsonlines import read_last_line
from configs.runfolder import Attempt, RunFolder, read_events, read_json

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


def used_by(run: RunFolder, *, now: float | None = None) -> list[dict[str, Any]]:
    """Returns seconds, processes and device of each attempt, superseded ones too; `now` ends the newest one.

    An attempt that ended before its processes had met does not say how many they were, and is not there.
    """
    began = {event["attempt"]: event for event in read_events(run.path) if event.get("event") == "started"}
    found = []
    for attempt in run.attempts():
        event = began.get(attempt.number)
        if event is not None and attempt.start_path.exists():
            seconds = round(attempt_seconds(attempt, now=now), 1)
            found.append({"attempt": attempt.number, "seconds": seconds, "world": int(event["world"]), "device": str(event["device"])})
    return found


def attempt_seconds(attempt: Attempt, *, now: float | None = None) -> float:
    """Returns the seconds from an attempt's start to its end; of one that left no word, to its last sign; of the newest, to `now`."""
    start, ended = attempt.read_start(), read_json(attempt.exit_path)
    if start is None:
        return 0.0
    signs = [path.stat().st_mtime for path in (attempt.metrics_path, attempt.events_path, attempt.start_path) if path.exists()]
    end = float(ended["time"]) if ended else max(signs)
    if not ended and attempt.successor() is None:
        end = time.time() if now is None else now
    return max(0.0, end - float(start["time"]))
