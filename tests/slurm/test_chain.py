"""A chain through Slurm: cpt, sft, dpo, evaluate, release as jobs that wait for each other; a stage that fails ends it."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.runfolder import read_json
from launch.chain import ChainFolder, all_chains, verified_model
from launch.chain_states import JOB_STAGES, current_states
from launch.records import Job, read_jobs, read_starts
from tests.chains.both_ways import CLUSTER as QUEUE
from tests.chains.both_ways import ENGINE
from tests.chains.lab import aisc_command, make_place, sections
from tests.chains.reduced import hkgai
from tests.slurm.cluster import ROOT, Cluster
from tests.slurm.processes import wait_until

CLUSTER = {
    "name": "slurm",
    "gpus_per_node": 0,
    "time": "10 min",
    "partition": "main",
    "cpu_partition": "cpu",
    "check_nodes": False,
    "stages": ["train"],  # tiny data: each training prepares its own
}
NAMES = ["cpt", "sft", "dpo", "evaluate", "release"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the chain `broken`, whose first stage's data has a row that cannot be used."""
    folder = tmp_path_factory.mktemp("chain")
    make_place(folder)
    chats = (folder / "chats.jsonl").read_text().splitlines()
    (folder / "bad.jsonl").write_text("\n".join([*chats[:20], '{"messages": [{"role": "asistant", "content": "x"}]}']) + "\n")
    dpo = {"objective": "dpo", "data": {"train": str(folder / "pairs.jsonl")}}
    write(folder, "broken", {"sft": {"objective": "sft", "data": {"train": str(folder / "bad.jsonl")}}, "dpo": dpo, "evaluate": {}})
    return folder


@pytest.fixture(scope="module")
def whole(place: Path) -> list[str]:
    """The words of the shipped hkgai_chain, reduced, on real corpora."""
    (place / "hkgai").mkdir()
    return [*hkgai(place / "hkgai"), *ENGINE, *QUEUE, "cluster.stages=[train]", f"run.dir={place / 'runs'}"]


def write(folder: Path, name: str, stages: dict[str, dict[str, object]]) -> None:
    """Writes a chain's YAML."""
    values = {**sections(folder, folder / "runs", **stages), "cluster": CLUSTER, "engine": {"backend": "gloo", "name": "ddp"}}
    (folder / f"{name}.yaml").write_text(json.dumps(values))


def launch(slurm: Cluster, *words: str) -> str:
    """Launches a chain and returns what that printed."""
    done = subprocess.run(aisc_command("launch", *words), cwd=ROOT, env=slurm.env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def launched(slurm: Cluster, place: Path, whole: list[str]) -> dict[str, tuple[ChainFolder, str]]:
    """Both chains, submitted, and what `aisc launch` printed."""
    said = {"broken": launch(slurm, str(place / "broken.yaml")), "hkgai_chain": launch(slurm, *whole)}
    chains = all_chains(place / "runs")
    return {name: (next(chain for chain in chains if chain.name.startswith(f"{name}-")), text) for name, text in said.items()}


def jobs_of(chain: ChainFolder) -> list[Job]:
    """Returns the job of each stage, in the order of the stages."""
    stages = chain.info().stages
    return [next(job for job in read_jobs(chain.path / one.run) if job.stage == JOB_STAGES[one.kind]) for one in stages]


def ended(slurm: Cluster, jobs: list[Job]) -> Callable[[], bool]:
    """Returns whether Slurm has come to an end with every one of `jobs`."""
    return lambda: all(slurm.job(job.job_id).state in ("COMPLETED", "FAILED", "CANCELLED") for job in jobs)


def outputs(slurm: Cluster, jobs: list[Job]) -> str:
    """Returns what the jobs have printed."""
    return "\n".join(f"{job.stage} {(view := slurm.job(job.job_id)).state}:\n{view.output}" for job in jobs)


def test_from_rows_to_a_released_folder_through_the_queue(
    slurm: Cluster, whole: list[str], launched: dict[str, tuple[ChainFolder, str]]
) -> None:
    chain, said = launched["hkgai_chain"]
    jobs = jobs_of(chain)
    assert [job.after for job in jobs] == [None, *(job.job_id for job in jobs[:-1])]
    assert "submitted " + " -> ".join(f"{name} {job.job_id}" for name, job in zip(NAMES, jobs, strict=True)) in said
    wait_until(ended(slurm, jobs), 1500.0, lambda: outputs(slurm, jobs))
    assert [slurm.job(job.job_id).state for job in jobs] == ["COMPLETED"] * 5, outputs(slurm, jobs)
    states = chain.info().stages
    assert [(one.name, one.state) for one in states] == [(name, "done") for name in NAMES], outputs(slurm, jobs)
    for former, stage in itertools.pairwise(NAMES[:3]):
        manifest, written = read_json(chain.run_of(stage).path / "manifest.json"), verified_model(chain.run_of(former))
        assert manifest is not None and len(manifest["weights"]) == 2
        for name, digest in manifest["weights"].items():
            assert written[str(Path(name).relative_to(chain.run_of(former).path))] == digest
    assert slurm.job(jobs[-1].job_id).fields["Partition"] == "cpu"
    assert list((chain.run_of("dpo").path / "release").rglob("*.safetensors"))
    said = launch(slurm, *whole)
    assert "nothing to submit" in said and f"done, verified: {', '.join(NAMES)}" in said


def test_a_stage_that_fails_cancels_those_behind_it_and_they_say_why(
    slurm: Cluster, launched: dict[str, tuple[ChainFolder, str]]
) -> None:
    chain, _ = launched["broken"]
    jobs = jobs_of(chain)
    wait_until(ended(slurm, jobs), 1500.0, lambda: outputs(slurm, jobs))
    assert [slurm.job(job.job_id).state for job in jobs] == ["FAILED", "CANCELLED", "CANCELLED"], outputs(slurm, jobs)
    states = current_states(chain)
    assert [one.state for one in states] == ["failed", "cancelled", "cancelled"]
    assert "1 of 21 rows" in states[0].cause
    (start,) = [start for start in read_starts(chain.run_of("dpo").path) if start.stage == "train"]
    assert start.verdict == "cancelled" and start.cause.startswith(f"stage sft (job {jobs[0].job_id}) failed: ")
    assert "is cancelled: it waited for this job" in slurm.job(jobs[0].job_id).output
    assert not chain.run_of("dpo").attempts(), "nothing was trained"
