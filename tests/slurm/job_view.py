"""What Slurm says of one job."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")


@dataclass(frozen=True, slots=True)
class JobView:
    """One job as `scontrol show job` shows it."""

    fields: dict[str, str]

    @property
    def state(self) -> str:
        """PENDING, RUNNING, COMPLETING, COMPLETED, ..."""
        return self.fields["JobState"]

    @property
    def restarts(self) -> int:
        """How often it was requeued."""
        return int(self.fields["Restarts"])

    @property
    def nodes(self) -> list[str]:
        """Names of its nodes; empty while it waits."""
        text = self.fields.get("NodeList", "(null)")
        return [] if text in ("(null)", "") else expand(text)

    @property
    def output(self) -> str:
        """The end of what it has printed."""
        path = Path(self.fields.get("StdOut", "/nonexistent"))
        return path.read_text(errors="replace")[-3000:] if path.is_file() else ""


def expand(text: str) -> list[str]:
    """Returns the hosts of `node[1-2],node3`."""
    hosts: list[str] = []
    for stem, ranges in re.findall(r"([^,\[]+)(?:\[([^]]*)\])?,?", text):
        for span in ranges.split(","):
            first, _, last = span.partition("-")
            numbers = range(int(first), int(last or first) + 1) if first else ()
            hosts += [f"{stem}{number:0{len(first)}d}" for number in numbers] or [stem]
    return hosts


def has_ended(states: str) -> bool:
    """Returns whether `states`, a line of sacct per start, ends with that of a job that is over."""
    return bool(states.split()) and states.rsplit(maxsplit=1)[-1] not in ("PENDING", "RUNNING", "REQUEUED")
