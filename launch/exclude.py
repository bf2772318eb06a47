"""Puts a running job back into the queue so that its next start avoids certain nodes. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

from launch.slurm_client import call


def requeue_without(job: str, nodes: Sequence[str]) -> None:
    """Requeues the job that this process runs in; the next start does not use `nodes`.

    Slurm lets a job's excluded nodes be set only while it is pending, which a requeued job is at once, before its
    processes are ended: so it is held, changed and released from inside.
    """
    call(("scontrol", "requeuehold", job))
    call(("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(nodes)}"))
    call(("scontrol", "release", job))
