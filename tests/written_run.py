"""Run folders for tests of what reads them: attempts, jobs and starts at times of our choice, in the formats of a real run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs import atomic
from configs.compose import freeze
from configs.jsonlines import append_line
from configs.runfolder import Attempt, RunFolder
from configs.schema import RunConfig
from configs.timekeeping import phases_path
from launch.records import Job, JobStart, write_job, write_start

# 2026-11-25 02:00:00 UTC
NIGHT = 1_795_572_000.0
SITE = """
name: centre
default_partition: gpu
partitions:
  gpu: {gpu: H800, gpu_memory_gb: 80, gpus_per_node: 8, price_per_gpu_hour: 25}
  cpu: {cpus_per_node: 64, price_per_node_hour: 4}
cpu_partition: cpu
price: {subsidy: 0.7, source: a test}
"""


class WrittenRun:
    """A run under `parent`, filled step by step."""

    def __init__(self, parent: Path, name: str = "hk_cpt-77ab01", *, project: str | None = "oncology", site: str = SITE) -> None:
        self.path = parent / name
        self.path.mkdir(parents=True)
        (parent / "site.yaml").write_text(site)
        config = RunConfig()
        config.run.project = project
        config.cluster.name = "slurm"
        config.cluster.site = str(parent / "site.yaml")
        atomic.write_file(self.path / "launch.yaml", freeze(config))

    def job(self, job_id: int = 481411, at: float = NIGHT, *, nodes: int = 2, gpus: int = 8, stage: str = "train", after: int | None = None) -> None:
        """A submission."""
        write_job(self.path, Job(job_id, stage, at, nodes, gpus, after))

    def start(self, began: float, ended: float | None = None, *, restart: int = 0, job_id: int = 481411, **fields: Any) -> None:
        """A start of a job on two nodes with eight GPUs each, unless said otherwise."""
        values = {"nodes": ["node03", "node07"], "gpus_per_node": 8, "stage": "train", **fields}
        write_start(self.path, JobStart(job_id=job_id, restart=restart, began=began, ended=ended, **values))

    def attempt(
        self,
        phases: Sequence[tuple[float, str]] = (),
        *,
        at: float,
        steps: Sequence[tuple[int, float]] = (),
        job: tuple[int, int] | None = (481411, 0),
        parent: tuple[int, int] | None = None,
        total_steps: int = 8010,
        host: str = "node03",
        **facts: Any,
    ) -> Attempt:
        """An attempt that began at `at`, with its phases and its steps (number, time)."""
        attempt = RunFolder(self.path).claim()
        begun = None if parent is None else {"attempt": parent[0], "step": parent[1], "manifest": "0" * 64}
        values = {"parent": begun, "host": host, "pid": 4242, "pid_started": "1", "time": at, "total_steps": total_steps, **facts}
        if job is not None:
            values |= {"job_id": job[0], "job_restart": job[1]}
        atomic.write_json(attempt.start_path, values)
        for began, phase in phases:
            append_line(phases_path(attempt), {"time": began, "phase": phase, "step": 0})
        if steps:
            metrics = [{"step": number, "loss": 2.5, "tokens": 1000 * number, "time": time} for number, time in steps]
            ledger = [{"step": number, "position": number - 1, "head": f"{number:064x}"} for number, _ in steps]
            attempt.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in metrics))
            attempt.ledger_path.write_text("".join(json.dumps(line) + "\n" for line in ledger))
        newest = max([at, *(time for time, _ in phases), *(time for _, time in steps)])
        for path in attempt.path.glob("*.json*"):
            os.utime(path, (newest, newest))
        os.utime(attempt.path, (newest, newest))
        return attempt

    def saved(self, attempt: Attempt, step: int, at: float) -> None:
        """A checkpoint's folder and its event."""
        (attempt.checkpoints / f"step-{step:08d}").mkdir()
        append_line(attempt.events_path, {"time": at, "event": "saved", "step": step, "seconds": 2.0, "stall_s": 0.1})
        os.utime(attempt.events_path, (at, at))
        os.utime(attempt.path, (at, at))

    def ended(self, attempt: Attempt, at: float, state: str, code: int, cause: str = "", **fields: Any) -> None:
        """An attempt's exit.json."""
        attempt.finish(state, code, cause, **fields)
        values = {**json.loads(attempt.exit_path.read_text()), "time": at}
        atomic.write_json(attempt.exit_path, values)
