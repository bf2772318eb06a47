"""A chain as its jobs find it: three stages, of which the first one's model is there, and records of their jobs."""

from __future__ import annotations

from pathlib import Path

from configs import atomic
from launch.chain import ChainFolder, ChainInfo, StageState
from launch.records import Job, write_job


def small_chain(folder: Path) -> ChainFolder:
    """Returns a chain of sft, dpo and evaluate; sft has a model, job 11 (dpo) follows job 10, job 12 (eval) follows 11."""
    made = ChainFolder(folder / "onc-2b81f0")
    sft, dpo = made.run_of("sft").path, made.run_of("dpo").path
    (sft / "model").mkdir(parents=True)
    (sft / "model" / "model.safetensors").write_bytes(b"weights")
    outputs = {"model/model.safetensors": atomic.sha256_file(sft / "model" / "model.safetensors")}
    atomic.write_json(sft / "manifest.json", {"outputs": outputs})
    (dpo / "jobs").mkdir(parents=True)
    write_job(sft, Job(10, "train", 1.0, 1, 1))
    write_job(dpo, Job(11, "train", 2.0, 1, 1, after=10))
    write_job(dpo, Job(12, "eval", 3.0, 1, 1, after=11))
    stages = [
        StageState(name="sft", kind="train", run=sft.name, identity="a", former=None),
        StageState(name="dpo", kind="train", run=dpo.name, identity="b", former="sft"),
        StageState(name="evaluate", kind="evaluate", run=dpo.name, identity="c", former="dpo"),
    ]
    made.write(ChainInfo(stem="onc", folder=str(folder), command="aisc launch onc.yaml", created=1.0, stages=stages))
    return made
