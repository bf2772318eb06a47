"""What cannot run is refused in one sentence with a remedy, before anything is in the queue."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kills.lab import make_chats, make_tokenizer
from tests.slurm.cluster import ROOT, Cluster


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, chats and a RUN.yaml for one node."""
    folder = tmp_path_factory.mktemp("refusals")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 60))
    sections = {
        "model": {"preset": "tiny_llama", "tokenizer": str(folder / "tokenizer")},
        "data": {"train": str(folder / "chats.jsonl"), "sequence_length": 64, "store": str(folder / "stores")},
        "training": {"duration": "4 steps", "min_steps": 0, "global_batch_size": 4, "precision": "fp32"},
        "engine": {"backend": "gloo", "name": "ddp"},
        "cluster": {"name": "slurm", "gpus_per_node": 1, "time": "5 min", "check_nodes": False, "stages": ["train"]},
        "run": {"dir": str(folder / "runs")},
    }
    (folder / "run.yaml").write_text(json.dumps(sections))
    return folder


def aisc(cluster: Cluster, place: Path, *arguments: str, **environment: str) -> tuple[int, str, float]:
    """Runs `aisc *arguments` beside the cluster's controller: exit code, what it said, seconds."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=ROOT,
        env={**cluster.env, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def queue(cluster: Cluster) -> str:
    """Returns what waits or runs."""
    return cluster.call("squeue", "--noheader")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("cluster.cpus_per_rank=640", "More processors requested than permitted; no node has that many cores: cluster.cpus_per_rank"),
        (
            "cluster.partition=nope",
            "sbatch refused: invalid partition specified: nope; allocation failure: Invalid partition name specified; "
            "see what there is: sinfo -s; then cluster.partition=NAME",
        ),
        ("cluster.account=nope", "Invalid account or account/partition combination specified; see yours: sacctmgr show associations"),
        ("cluster.qos=nope", "Invalid qos specification; see yours: sacctmgr show associations"),
        ("cluster.nodes=7", "Node count specification invalid; fewer cluster.nodes, or another cluster.partition (sinfo -s)"),
        ("cluster.name=local", "cluster.name=local: is this machine, where aisc train runs; for the queue: cluster=slurm or cluster=aisc"),
        ("cluster.gpus_per_node=auto", "cluster.gpus_per_node=auto: no site file says nothing of partition (default); give"),
        ("cluster.name=aisc", "cluster=aisc: no site file; looked at cluster.site, $AISC_SITE"),
    ],
)
def test_one_sentence_and_nothing_in_the_queue(slurm: Cluster, place: Path, override: str, sentence: str) -> None:
    before = queue(slurm)
    code, said, _ = aisc(slurm, place, "launch", str(place / "run.yaml"), override)
    assert code == 2 and said.startswith("error: ") and sentence in said, said
    assert len(said.splitlines()) == 1
    assert queue(slurm) == before
    assert not list((place / "runs").glob("*/launch.sbatch"))


def test_a_dry_run_writes_nothing_and_costs_little(slurm: Cluster, place: Path) -> None:
    program = (
        "import resource, sys\nfrom cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print('used', used.ru_utime + used.ru_stime, int(peak.split()[1]) / 1024, 'torch' in sys.modules, code)\n"
    )
    command = [sys.executable, "-c", program, "launch", str(place / "run.yaml"), "--dry-run"]
    said = subprocess.run(command, cwd=ROOT, env=slurm.env, capture_output=True, text=True, check=True).stdout
    seconds, megabytes, has_torch, code = said.splitlines()[-1].split()[1:]
    assert (has_torch, code) == ("False", "0") and "#SBATCH --job-name=run-" in said
    assert float(seconds) < 2.0 and float(megabytes) < 150
    assert not (place / "runs").exists()


def test_a_budget_that_is_used_up_is_refused(slurm: Cluster, place: Path) -> None:
    (place / "prices.yaml").write_text("projects: {oncology: {max_gpu_hours: 0.05}}\n")
    limited = ("launch", str(place / "run.yaml"), "cluster.max_gpu_hours=0.01")
    code, said, _ = aisc(slurm, place, *limited)
    assert code == 2 and "cluster.max_gpu_hours=0.01: this takes 0.1 GPU-hours (one start of cluster.time=5 min" in said, said
    of_project = ("launch", str(place / "run.yaml"), f"cluster.site={place / 'prices.yaml'}", "run.project=oncology")
    code, said, _ = aisc(slurm, place, *of_project)
    assert code == 2 and "run.project=oncology: this takes 0.1 GPU-hours" in said and "nothing was submitted" in said, said


def test_without_slurm_here_it_says_so(slurm: Cluster, place: Path) -> None:
    code, said, _ = aisc(slurm, place, "launch", str(place / "run.yaml"), PATH="/nothing")
    assert code == 2
    assert said == "error: aisc launch: no Slurm on this machine (sbatch is not on the path); here: aisc train, or --dry-run\n"


def test_a_folder_that_the_nodes_do_not_see_is_refused(slurm: Cluster, place: Path) -> None:
    site = place / "site.yaml"
    site.write_text("storage: {runs: /lustre/runs, shared: [/lustre]}\n")
    code, said, _ = aisc(slurm, place, "launch", str(place / "run.yaml"), f"cluster.site={site}")
    assert code == 2
    assert f"run.dir={place / 'runs'}: the nodes do not see it; {site} names /lustre as shared. Give a folder there: run.dir=" in said


@pytest.fixture
def held(slurm: Cluster, place: Path) -> Iterator[str]:
    """A run that was launched and is held in the queue; its job's number."""
    code, said, _ = aisc(slurm, place, "launch", str(place / "run.yaml"), "cluster.directives={hold: true}", "training.seed=5")
    assert code == 0, said
    job = said.split("submitted ")[1].split()[0]
    yield job
    slurm.call("scancel", job)


def test_two_launches_of_one_run_are_one_job(slurm: Cluster, place: Path, held: str) -> None:
    code, said, _ = aisc(slurm, place, "launch", str(place / "run.yaml"), "training.seed=5")
    assert code == 2 and f"job {held} (train) of this run is pending; nothing was submitted." in said, said
    assert len(queue(slurm).splitlines()) == 1


def test_two_launches_at_the_same_time_are_one_job(slurm: Cluster, place: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "launch", str(place / "run.yaml"), "training.seed=6", "cluster.directives={hold: true}"]
    both = [subprocess.Popen(command, cwd=ROOT, env=slurm.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    waiting = queue(slurm).split()
    slurm.call("scancel", "--user=root")
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert waiting.count("PD") == 1


def test_a_controller_that_does_not_answer_is_not_waited_for_long(cluster: Cluster, place: Path) -> None:
    cluster.kill_ctld()
    code, said, seconds = aisc(cluster, place, "launch", str(place / "run.yaml"), "training.seed=7")
    assert code == 2 and "the Slurm controller d" in said and "try again later" in said, said
    assert seconds < 60
    cluster.start_ctld()
    assert queue(cluster) == ""


def test_a_job_submitted_by_hand_is_seen(cluster: Cluster, place: Path) -> None:
    launch = ("launch", str(place / "run.yaml"), "training.seed=8", "cluster.directives={hold: true}")
    code, said, _ = aisc(cluster, place, *launch)
    assert code == 0, said
    job = said.split("submitted ")[1].split()[0]
    cluster.call("scancel", job)
    (script,) = [path for path in (place / "runs").glob("*/launch.sbatch") if (path.parent / "jobs" / f"{job}.json").exists()]
    by_hand = cluster.submit(script)
    code, said, _ = aisc(cluster, place, *launch)
    assert code == 2 and f"job {by_hand} (submitted by hand) of this run is pending" in said, said
