"""The chain of jobs: which stages, what each asks for, what their scripts say, what a failed one stops."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from configs.facts import Shape
from configs.schema import RunConfig
from configs.site import Partition, Site
from launch.explain import explain
from launch.records import Job, JobStart, read_start, write_job, write_start
from launch.slurm import make_launch, render
from launch.stage_job import after_training, end_stage, last_words
from launch.stages import followers, render_stage, stage_launch, stage_shape, stages_of

RUN = Path("/lustre/runs/onc-1a2b3c")
AISC = ("/opt/aisc/bin/aisc",)
SHAPE = Shape(nodes=2, gpus_per_node=8, ranks_per_node=8, cpus_per_rank=16)
SITE = Site(
    default_partition="gpu",
    cpu_partition="cpu",
    partitions={"gpu": Partition(gpu="H800", gpus_per_node=8, cpus_per_node=128), "cpu": Partition(cpus_per_node=64)},
)


def config(**cluster: object) -> RunConfig:
    made = RunConfig()
    for name, value in {"name": "slurm", "time": "6h", **cluster}.items():
        setattr(made.cluster, name, value)
    made.engine.backend = "nccl"
    return made


def script(given: RunConfig, stage: str, site: Site = SITE) -> str:
    return render_stage(given, stage_launch(given, site, SHAPE, RUN, AISC, stage), stage)


@pytest.mark.parametrize(
    ("named", "is_prepared", "expected"),
    [
        ([], False, ["prepare", "train"]),
        ([], True, ["train"]),
        (["train"], False, ["train"]),
        (["export", "eval", "prepare"], False, ["prepare", "train", "eval", "export"]),
        (["prepare", "train", "export"], True, ["train", "export"]),
    ],
)
def test_stages_in_their_order_without_what_is_done(named: list[str], is_prepared: bool, expected: list[str]) -> None:
    assert stages_of(config(stages=named), is_prepared=is_prepared) == expected


def test_prepare_takes_a_cpu_node_and_no_gpu() -> None:
    given = config(constraint="h800", memory="2000G", directives={"gpu-bind": "closest", "comment": "x"}, container="/i.sif", account="onc")
    text = script(given, "prepare")
    for line in ("--partition=cpu", "--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=64", "--account=onc", "--comment=x", "--requeue"):
        assert f"#SBATCH {line}\n" in text
    assert "gpu" not in text.lower() and "--mem" not in text and "constraint" not in text and "--nv" not in text
    assert 'srun --cpus-per-task=64 apptainer exec /i.sif aisc prepare "$AISC_RUN/launch.yaml" || code=$?' in text
    assert "export OMP_NUM_THREADS=64\n" in text
    assert text.rstrip().endswith('job stage-end "$AISC_RUN" prepare "$code"')


def test_eval_takes_one_gpu_of_the_training_partition() -> None:
    text = script(config(constraint="h800"), "eval")
    for line in ("--partition=gpu", "--nodes=1", "--gpus-per-node=1", "--cpus-per-task=16", "--constraint=h800"):
        assert f"#SBATCH {line}\n" in text
    assert 'eval "$AISC_RUN" || code=$?' in text


@pytest.mark.parametrize(("adapter", "merge", "words"), [("lora", False, " --merge"), ("lora", True, ""), ("none", False, "")])
def test_export_merges_what_is_an_adapter(adapter: str, merge: bool, words: str) -> None:
    given = config()
    given.adapter.name, given.export.merge = adapter, merge
    assert f'export "$AISC_RUN"{words} || code=$?' in script(given, "export")


def test_without_a_cpu_partition_stages_keep_the_training_partition_and_its_share_of_cores() -> None:
    site = Site(default_partition="gpu", partitions=SITE.partitions)
    text = script(config(constraint="h800"), "prepare", site)
    assert "--partition=gpu\n" in text and "--constraint=h800\n" in text and "gpus-per-node" not in text
    assert stage_shape(site, SHAPE, None, "prepare") == Shape(1, 0, 1, 128)


def test_scripts_are_bash() -> None:
    import subprocess

    given = config(stage_to="/scratch", container="img.sqsh", container_runtime="pyxis", container_mounts=["/lustre:/lustre"])
    train = render(make_launch(given, SITE, SHAPE, RUN, AISC))
    for text in (train, *(script(given, stage) for stage in ("prepare", "eval", "export"))):
        checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_staging_and_containers_in_the_training_script() -> None:
    given = config(stage_to="/scratch", container="/images/aisc.sif", container_mounts=["/lustre:/lustre"])
    text = render(make_launch(given, SITE, SHAPE, RUN, AISC))
    inside = "apptainer exec --nv --bind /lustre:/lustre --bind /scratch:/scratch /images/aisc.sif"
    assert "export AISC_STAGED=/scratch/aisc-$SLURM_JOB_ID\n" in text
    assert f'srun --nodes=2 --ntasks=2 --ntasks-per-node=1 {inside} aisc job stage-in "$AISC_RUN" "$AISC_STAGED"' in text
    assert text.index("stage-in") < text.index(" train ") < text.index('rm -rf -- "$AISC_STAGED"') < text.index('" job end')
    given.cluster.container_runtime = "pyxis"
    image = "--container-image=/images/aisc.sif --container-mounts=/lustre:/lustre,/scratch:/scratch"
    text = render(make_launch(given, SITE, SHAPE, RUN, AISC))
    assert f'--ntasks-per-node=1 {image} aisc job stage-in "$AISC_RUN"' in text
    assert f'srun --cpus-per-task=16 {image} --kill-on-bad-exit=0' in text and "apptainer" not in text


JOBS = [Job(12, "prepare", 1.0, 1, 0), Job(13, "train", 2.0, 2, 8, after=12), Job(14, "eval", 3.0, 1, 1, after=13), Job(20, "train", 9.0, 2, 8)]


def test_what_waits_for_a_job() -> None:
    assert [job.job_id for job in followers(JOBS, 12)] == [13, 14]
    assert [job.job_id for job in followers(JOBS, 13)] == [14]
    assert followers(JOBS, 20) == []


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    for job in JOBS:
        write_job(tmp_path, dataclasses.replace(job))
    write_start(tmp_path, JobStart(12, "prepare", 0, 100.0, ["cpu01"], 0))
    return tmp_path


def test_a_failed_stage_says_why_and_what_is_cancelled(begun: Path) -> None:
    said = "reading\nerror: 3 of 9 rows cannot be used\n\n  line 8  role: no such role\nsrun: error: cpu01: task 0: Exited with exit code 2\n"
    (begun / "jobs" / "12.out").write_text(said)
    code, text = end_stage(begun, "prepare", 2, {"SLURM_JOB_ID": "12"})
    assert code == 2
    assert text.splitlines()[0] == "prepare: failed: 3 of 9 rows cannot be used"
    assert text.splitlines()[1:] == ["train (job 13) is cancelled: it waited for this job", "eval (job 14) is cancelled: it waited for this job"]
    cancelled = read_start(begun, 14, 0)
    assert cancelled is not None and cancelled.verdict == "cancelled"
    assert cancelled.cause == "prepare (job 12) failed: 3 of 9 rows cannot be used" and cancelled.nodes == []
    assert read_start(begun, 20, 0) is None, "a later launch does not wait for it"


def test_the_run_says_that_it_was_cancelled(begun: Path) -> None:
    end_stage(begun, "prepare", 2, {"SLURM_JOB_ID": "12"})
    lines = explain(begun, now=200.0)
    text = "\n".join(lines)
    assert len(lines) <= 10 and max(map(len, lines)) <= 80
    assert "cancelled: a job that it waited for failed" in text and "prepare (job 12) failed: exit code 2" in text
    assert "Put it right, then launch it again" in text


def test_a_training_that_fails_stops_what_follows(begun: Path) -> None:
    write_start(begun, JobStart(13, "train", 1, 100.0, ["gpu01"], 8, ended=150.0, code=1, verdict="failed", cause="loss is nan"))
    environment = {"SLURM_JOB_ID": "13", "SLURM_RESTART_COUNT": "1"}
    assert after_training(begun, environment) == ["eval (job 14) is cancelled: it waited for this job"]
    cancelled = read_start(begun, 14, 0)
    assert cancelled is not None and cancelled.cause == "train (job 13) failed: loss is nan"
    write_start(begun, JobStart(13, "train", 1, 100.0, ["gpu01"], 8, ended=150.0, code=75, verdict="requeued", cause="preempted"))
    assert after_training(begun, environment) == []


def test_an_interrupted_stage_says_nothing_of_what_follows(begun: Path) -> None:
    code, text = end_stage(begun, "prepare", 143, {"SLURM_JOB_ID": "12", "SLURM_JOB_END_TIME": "99999999999"})
    assert (code, text) == (143, "prepare: interrupted: signal 15: preemption or scancel")
    assert read_start(begun, 13, 0) is None


def test_a_stage_that_ran_into_its_time_limit_has_failed(begun: Path) -> None:
    _, text = end_stage(begun, "prepare", 143, {"SLURM_JOB_ID": "12", "SLURM_JOB_END_TIME": "1000"})
    assert text.startswith("prepare: failed: its time limit was reached; a longer one: cluster.time\ntrain (job 13) is cancelled")


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", ""),
        ("all is well\n", ""),
        ("error: first\nmore\nerror: second\n  its cause\n  another\nsrun: done\n", "second its cause another"),
        ("failed: export: weights differ\n", "export: weights differ"),
        (f"error: {'x' * 900}\n", f"{'x' * 299}…"),
    ],
)
def test_the_last_error_of_an_output(tmp_path: Path, output: str, words: str) -> None:
    (tmp_path / "out").write_text(output)
    assert last_words(tmp_path / "out") == words
