"""Puts a running job back into the queue so that its next start avoids certain nodes. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

from launch.slurm_client import call


def requeue_without(job_id: int, nodes: Sequence[str]) -> None:
    """Requeues the job that this process runs in; the next start does not use `nodes`.

    Slurm lets a job's excluded nodes be set only while it is pending, which a requeued job is at once, before its
    processes are ended: so it is held, changed and released from inside.
    """
    call(("scontrol", "requeuehold", str(job_id)))
    call(("scontrol", "update", f"JobId={job_id}", f"ExcNodeList={','.join(nodes)}"))
    call(("scontrol", "release", str(job_id)))
