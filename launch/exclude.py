"""Puts a running job back into the queue so that its next start avoids certain nodes. Torch-free."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from launch.slurm_client import call


def requeue_without(job: str, nodes: Sequence[str], again: Sequence[str] = ()) -> None:
    """Requeues the job that this process runs in; the next start does not use `nodes`, nor what was excluded before.

    Slurm lets a job's excluded nodes be set only while it is pending, which a requeued job is at once. It does not start
    again before its processes have ended, of which this is one: so there is time to set them, KillWait (30 s by default)
    at most. It is not held meanwhile: should this process be killed on the way, the job starts without an exclusion
    instead of never.

    Args:
        job: as scontrol is told it, `481516` or `481516_3`.
        nodes: to be avoided.
        again: avoided before, to be used again.

    Raises:
        LaunchError: Slurm refused, or did not answer.
    """
    before = _excluded(job)
    wanted = list(dict.fromkeys([*(node for node in before if node not in again), *nodes]))
    # The requeue sends SIGTERM to all processes of the job; what this one ignores, scontrol ignores too.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    call(("scontrol", "requeue", job))
    call(("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(wanted)}"))


def _excluded(job: str) -> list[str]:
    words = call(("scontrol", "--oneliner", "show", "job", job)).split()
    text = next((word.partition("=")[2] for word in words if word.startswith("ExcNodeList=")), "")
    return [] if text in ("", "(null)") else call(("scontrol", "show", "hostnames", text)).split()
