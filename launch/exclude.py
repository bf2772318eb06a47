"""Puts a running job back into the queue so that its next start avoids certain nodes. Torch-free."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from launch.slurm_client import call


def requeue_without(job_id: int, nodes: Sequence[str], again: Sequence[str] = ()) -> None:
    """Requeues the job that this process runs in; the next start does not use `nodes`, nor what was excluded before.

    Slurm lets a job's excluded nodes be set only while it is pending, which a requeued job is at once. It does not start
    again before its processes have ended, of which this is one: so there is time to set them, KillWait (30 s by default)
    at most. It is not held meanwhile: should this process be killed on the way, the job starts without an exclusion
    instead of never.

    Args:
        job_id: its number.
        nodes: to be avoided.
        again: avoided before, to be used again.

    Raises:
        LaunchError: Slurm refused, or did not answer.
    """
    before = _excluded(job_id)
    wanted = list(dict.fromkeys([*(node for node in before if node not in again), *nodes]))
    # The requeue sends SIGTERM to all processes of the job; what this one ignores, scontrol ignores too.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    call(("scontrol", "requeue", str(job_id)))
    call(("scontrol", "update", f"JobId={job_id}", f"ExcNodeList={','.join(wanted)}"))


def _excluded(job_id: int) -> list[str]:
    words = call(("scontrol", "--oneliner", "show", "job", str(job_id))).split()
    text = next((word.partition("=")[2] for word in words if word.startswith("ExcNodeList=")), "")
    return [] if text in ("", "(null)") else call(("scontrol", "show", "hostnames", text)).split()
