"""Every start of the run: what it continued from, how it ended, what happened in it."""

from __future__ import annotations

import time

from configs.runfolder import RunFolder, read_json
from train.report.section import Section


def section(run: RunFolder) -> Section | None:
    """Returns one row per attempt."""
    rows = []
    for attempt in run.attempts():
        start, end = attempt.read_start(), read_json(attempt.exit_path)
        if start is None:
            rows.append((str(attempt.number), "-", "-", "ended before it had a start"))
            continue
        parent = start["parent"]
        origin = f"attempt {parent['attempt']}, step {parent['step']:,}" if parent else "the beginning"
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(start["time"]))
        how = "no exit.json: running, or killed" if end is None else f"{end['state']} {end['cause']}".strip()
        rows.append((str(attempt.number), when, origin, how))
    return Section("Attempts", tuple(rows), ("attempt", "started", "from", "end")) if rows else None
