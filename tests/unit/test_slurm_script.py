"""The script of a job: readable, whole, the same for the same request; every value arrives as it was given."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from configs.compose import load
from configs.errors import ConfigError
from configs.facts import bytes_of, facts_on_cluster, shape_of
from configs.site import Site, parse_site
from launch.slurm import make_launch, render, slurm_time
from tests.unit.test_site import example

BASE = ["model=tiny_llama", "model.tokenizer=/t", "data=/d.jsonl", "cluster=slurm"]


def script(site: Site, *overrides: str, run: Path = Path("/runs/hk_cpt-77ab02")) -> str:
    """Returns the script for these overrides."""
    config = load([*BASE, *overrides]).config
    return render(make_launch(config, site, shape_of(config.cluster, site), run, ("/opt/aisc/bin/aisc",)))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The documented site file."""
    path = tmp_path / "site.yaml"
    path.write_text(example())
    return parse_site(path)


def told(text: str) -> dict[str, str]:
    """Returns what sbatch is told, by option."""
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


def test_a_job_takes_whole_nodes_of_the_site_s_partition(site: Site) -> None:
    options = told(script(site, "cluster.nodes=2", "cluster.time=10h", "run.project=oncology", "cluster.mail_user=a@b.hk"))
    options.pop("chdir")
    assert options == {
        "job-name": "hk_cpt-77ab02",
        "nodes": "2",
        "ntasks-per-node": "8",
        "gpus-per-node": "8",
        "cpus-per-task": "16",
        "time": "0-10:00:00",
        "output": "/runs/hk_cpt-77ab02/jobs/%j.out",
        "open-mode": "append",
        "requeue": "",
        "partition": "gpu",
        "account": "onc",
        "mail-user": "a@b.hk",
        "mail-type": "END,FAIL,REQUEUE",
    }


def test_the_script_is_shell_and_runs_one_task_per_rank(site: Site) -> None:
    text = script(site, "cluster.setup=[module load cuda]", "cluster.environment={NCCL_DEBUG: INFO}")
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    lines = text.splitlines()
    assert "module load cuda" in lines and "export NCCL_DEBUG=INFO" in lines and "export NCCL_SOCKET_IFNAME=ib0" in lines
    assert "export HF_HUB_OFFLINE=1" in lines
    srun = [line.strip() for line in lines if line.strip().startswith("srun")]
    assert len(srun) == 2 and " job check " in srun[0] and " train " in srun[1]
    assert "CUDA_VISIBLE_DEVICES" not in text
    assert "job check" not in script(site, "cluster.check_nodes=false")


@pytest.mark.parametrize("name", ["a b", "病人's", 'quo"te', "dollar$HOME", "back`tick`"])
def test_a_run_folder_of_any_name_arrives_as_it_is(site: Site, name: str) -> None:
    text = script(site, run=Path("/runs") / name)
    line = next(line for line in text.splitlines() if line.startswith("export AISC_RUN="))
    shown = subprocess.run(["bash", "-c", f'{line}; printf %s "$AISC_RUN"'], capture_output=True, text=True, check=True)
    assert shown.stdout == f"/runs/{name}"


def test_containers_stand_before_the_command(site: Site) -> None:
    text = script(site, "cluster.container=/images/aisc.sif", "cluster.container_mounts=[/data:/data]", "engine.backend=nccl")
    assert 'apptainer exec --nv --bind /data:/data /images/aisc.sif "${AISC[@]}" train' in text
    text = script(site, "cluster.container=/images/aisc.sqsh", "cluster.container_runtime=pyxis")
    assert "--container-image=/images/aisc.sqsh" in text and "apptainer exec" not in text


def test_cpu_ranks_see_no_gpu(site: Site) -> None:
    assert 'env CUDA_VISIBLE_DEVICES= "${AISC[@]}" train' in script(site, "engine.backend=gloo")


def test_autos_without_a_site_file_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"cluster.gpus_per_node=auto: no site file says nothing of partition \(default\); give"):
        script(Site())
    assert told(script(Site(), "cluster.gpus_per_node=0", "cluster.ranks_per_node=4"))["ntasks-per-node"] == "4"


def test_more_gpus_than_a_node_has_is_refused(site: Site) -> None:
    with pytest.raises(ConfigError, match="cluster.gpus_per_node=16: nodes of partition gpu have 8"):
        script(site, "cluster.gpus_per_node=16")


def test_facts_are_those_of_the_nodes(site: Site) -> None:
    config = load([*BASE, "cluster.nodes=4"]).config
    facts = facts_on_cluster(config, site, shape_of(config.cluster, site))
    assert (facts.num_gpus, facts.world_size, facts.gpu_bytes) == (8, 32, 80_000_000_000)
    assert facts.host_bytes == 2000 * 1024**3


@pytest.mark.parametrize(("text", "value"), [("200G", 200 * 1024**3), ("512", 512 * 1024**2), ("2T", 2 * 1024**4), ("1.5 GiB", 1610612736), ("much", None), (None, None)])
def test_memory_is_read_as_slurm_does(text: str | None, value: int | None) -> None:
    assert bytes_of(text) == value


@pytest.mark.parametrize(("seconds", "text"), [(60, "0-00:01:00"), (36_000, "0-10:00:00"), (129_600, "1-12:00:00")])
def test_times_are_written_as_sbatch_reads_them(seconds: int, text: str) -> None:
    assert slurm_time(seconds) == text
