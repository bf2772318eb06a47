"""What it ran on, and the memory that its longest legal batch took, measured before the first step."""

from __future__ import annotations

from configs.runfolder import RunFolder, read_events
from train.report.section import Section

GIB = 2**30


def section(run: RunFolder) -> Section | None:
    """Returns one row per attempt that came as far as the rehearsal."""
    rows = tuple(
        (
            str(event["attempt"]),
            f"{event['world']} x {event['device']}",
            f"{event['micro_batch_size']} rows ({event['reason']})",
            f"{event['peak_bytes'] / GIB:.2f} of {event['total_bytes'] / GIB:.1f} GiB",
        )
        for event in read_events(run.path)
        if event["event"] == "started" and "peak_bytes" in event
    )
    return Section("Machine and memory", rows, ("attempt", "ranks", "micro-batch", "worst batch")) if rows else None
