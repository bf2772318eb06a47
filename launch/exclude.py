"""Puts a running job back into the queue so that its next start avoids certain nodes. Torch-free."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from launch.slurm_client import call


def requeue_without(job: str, nodes: Sequence[str], again: Sequence[str] = ()) -> str | None:
    """Requeues the job that this process runs in; the next start does not use `nodes`, nor what was excluded before.

    Slurm lets a job's excluded nodes be set only while it is pending, which a requeued job is at once. It does not start
    again before its processes have ended, of which this is one: so there is time to set them, KillWait (30 s by default)
    at most. It is not held meanwhile: should this process be killed on the way, the job starts without an exclusion
    instead of never.

    Args:
        job: its number, `481517`, or `481520_3` of an array.
        nodes: to be avoided.
        again: avoided before, to be used again.

    Returns why it was not requeued, when too few nodes are left: Slurm would hold it for ever (BadConstraints).

    Raises:
        LaunchError: Slurm refused, or did not answer.
    """
    words = call(("scontrol", "--oneliner", "show", "job", job)).split()
    fields = dict(word.partition("=")[::2] for word in words if "=" in word)
    before = _expand(fields.get("ExcNodeList", ""))
    wanted = list(dict.fromkeys([*(node for node in before if node not in again), *nodes]))
    partition, needed = fields["Partition"], int(fields["NumNodes"].partition("-")[0])
    names = set(call(("sinfo", "--noheader", "--Node", f"--partition={partition}", "--format=%N")).split())
    left = len(names - set(wanted))
    if left < needed:
        return f"without {', '.join(wanted)} partition {partition} has {left} nodes, the job needs {needed}"
    # The requeue sends SIGTERM to all processes of the job; what this one ignores, scontrol ignores too.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    call(("scontrol", "requeue", job))
    call(("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(wanted)}"))
    return None


def _expand(text: str) -> list[str]:
    return [] if text in ("", "(null)") else call(("scontrol", "show", "hostnames", text)).split()
