"""A chain's jobs: none is submitted twice, whatever was killed between; a job's script tells its end wherever it leaves."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs import atomic
from configs.compose import freeze
from configs.errors import LaunchError
from configs.facts import Shape
from configs.schema import RunConfig
from configs.site import Site
from launch import chain as chain_module
from launch import control
from launch.chain import ChainFolder
from launch.chain_alive import check_not_queued, check_told
from launch.chain_local import Runner, run_stages
from launch.chain_queue import StageJobs, end_job, submit_chain, with_hand_on
from launch.chain_states import current_states
from launch.records import SCRIPT_NAMES, JobStart, read_jobs, read_start, write_start
from launch.slurm import make_launch, render
from launch.stage_job import begin_stage, end_stage
from launch.submit import Script
from tests.small_chain import small_chain

ROOT = Path(__file__).parents[2]
STAGES = {"sft": ("sft", "train"), "dpo": ("dpo", "train"), "evaluate": ("dpo", "eval")}
# A queue of three commands and a file: `ID STATE SCRIPT OPTIONS` in each line.
COMMANDS = {
    "squeue": """
for word in "$@"; do case $word in --jobs=*) job=${word#*=};; esac; done
while read -r id state path options; do
  if [ -z "${job:-}" ] && [ "$state" = CANCELLED ]; then continue; fi
  if [ -z "${job:-}" ]; then echo "$id|$state|$path"; elif [ "$job" = "$id" ]; then echo "$state"; fi
done < "$QUEUE"
""",
    "sbatch": """
if [ -n "${REFUSE:-}" ] && [[ "$*" == *$REFUSE* ]]; then echo "sbatch: error: no" >&2; exit 1; fi
id=$((20 + $(grep -c . "$QUEUE")))
echo "$id PENDING ${*: -1} $2" >> "$QUEUE"
echo "$id"
""",
    "scancel": 'sed -i "s/^$1 PENDING/$1 CANCELLED/" "$QUEUE"',
    "scontrol": 'if [ "$2" = hostnames ]; then echo n1; else exit 1; fi',
    "srun": "kill -TERM $PPID; exit 3",
    "aisc": 'echo "$*" >> "$LOG"; case "$1 $2" in $FAILS) exit 2;; "job begin") echo 1999999999;; "job end") exit 75;; esac',
}


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChainFolder:
    """The small chain, with a Slurm of shell scripts on the path and an empty queue."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o700)
    (tmp_path / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return small_chain(tmp_path)


def stages_of(chain: ChainFolder) -> list[StageJobs]:
    """Returns what `aisc launch` submits: one script each."""
    kinds = {"train": "train", "eval": "evaluate"}
    return [
        StageJobs(name, kinds[key], chain.run_of(run).path, "", [Script(key, "#!/bin/bash\n", 1, 0)]) for name, (run, key) in STAGES.items()
    ]


def put(chain: ChainFolder, **states: str) -> None:
    """Fills the queue: the state of each stage's job 10, 11, 12."""
    numbers = dict(zip(STAGES, (10, 11, 12), strict=True))
    lines = [f"{numbers[name]} {state} {script(chain, name)}\n" for name, state in states.items()]
    (chain.path.parent / "queue").write_text("".join(lines))


def script(chain: ChainFolder, name: str) -> Path:
    run, key = STAGES[name]
    return chain.run_of(run).path / SCRIPT_NAMES[key]


def forget(chain: ChainFolder, *jobs: int) -> None:
    """Removes the records of jobs."""
    for job in jobs:
        next(chain.path.glob(f"*/jobs/{job}.json")).unlink()


def queue(chain: ChainFolder) -> list[str]:
    """Returns the queue's lines, scripts left out."""
    lines = (chain.path.parent / "queue").read_text().splitlines()
    return [" ".join(word for word in line.split() if "/" not in word) for line in lines]


def test_killed_between_two_stages_the_first_is_not_submitted_again(chain: ChainFolder) -> None:
    forget(chain, 11, 12)
    put(chain, sft="RUNNING")
    assert submit_chain(chain, stages_of(chain)) == {"sft": (10, False), "dpo": (21, True), "evaluate": (22, True)}
    assert queue(chain) == ["10 RUNNING", "21 PENDING --dependency=afterok:10", "22 PENDING --dependency=afterok:21"]
    assert submit_chain(chain, stages_of(chain)) == {"sft": (10, False), "dpo": (21, False), "evaluate": (22, False)}


def test_killed_before_a_job_was_recorded_it_is_found_by_its_script(chain: ChainFolder) -> None:
    forget(chain, 11, 12)
    put(chain, sft="RUNNING", dpo="PENDING")
    assert submit_chain(chain, stages_of(chain)) == {"sft": (10, False), "dpo": (11, False), "evaluate": (22, True)}
    assert [(job.job_id, job.after) for job in read_jobs(chain.run_of("dpo").path)] == [(11, 10), (22, 11)]


def test_what_waits_for_a_job_that_failed_is_submitted_again(chain: ChainFolder) -> None:
    put(chain, dpo="PENDING", evaluate="PENDING")  # Slurm has not cancelled them yet
    assert submit_chain(chain, stages_of(chain)) == {"sft": (22, True), "dpo": (23, True), "evaluate": (24, True)}
    assert queue(chain)[:2] == ["11 CANCELLED", "12 CANCELLED"]


def test_a_training_that_ended_meanwhile_is_not_submitted_again(chain: ChainFolder) -> None:
    chain.run_of("sft").claim().finish("done", 0)
    atomic.write_json(chain.run_of("sft").result_path, {})
    put(chain, dpo="RUNNING", evaluate="PENDING")
    assert submit_chain(chain, stages_of(chain)) == {"dpo": (11, False), "evaluate": (12, False)}


def test_a_stage_is_not_resumed_while_a_command_submits_the_chain(chain: ChainFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look whether its job is there before they submit it: the second one looks after the first is through."""
    monkeypatch.setattr(chain_module, "HELD_WAIT_S", 0.0)
    run = chain.run_of("sft").path
    atomic.write_file(script(chain, "sft"), "#!/bin/bash\n")
    with chain.held(), pytest.raises(LaunchError, match="another command runs this chain"):
        control.resume(run)
    assert queue(chain) == []
    assert "submitted 20" in control.resume(run)
    assert submit_chain(chain, stages_of(chain)) == {"sft": (20, False), "dpo": (21, True), "evaluate": (22, True)}


def test_a_refusal_leaves_nothing_in_the_queue_and_the_chain_as_it_was(chain: ChainFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.change("sft", state="failed", cause="1 of 21 rows")
    before = chain.info()
    monkeypatch.setenv("REFUSE", "afterok:20")
    with pytest.raises(LaunchError, match="sbatch refused: no; nothing was submitted"):
        submit_chain(chain, stages_of(chain))
    assert queue(chain) == ["20 CANCELLED"] and chain.info() == before


def test_what_is_in_the_queue_is_not_told_something_else_nor_run_here(chain: ChainFolder) -> None:
    put(chain, evaluate="RUNNING")
    stages = chain.info().stages
    check_told(chain, stages, stages)
    for wanted in (stages[:2], [*stages[:2], dataclasses.replace(stages[2], identity="d")]):
        with pytest.raises(LaunchError, match=r"stage evaluate is running \(job 12\) and was told something else; nothing was submitted"):
            check_told(chain, stages, wanted)
    with pytest.raises(LaunchError, match=r"stage evaluate is running in the queue \(job 12\); nothing was started here"):
        check_not_queued(chain)


def job_script(chain: ChainFolder, stage: str, aisc: tuple[str, ...], *setup: str) -> Path:
    """Writes the script of a training's job, as `aisc launch` renders it."""
    config = RunConfig()
    config.cluster.max_restarts, config.cluster.check_nodes, config.cluster.setup = 1, False, list(setup)
    run = chain.run_of(stage).path
    (run / "launch.yaml").write_text(freeze(config))
    text = render(with_hand_on(make_launch(config, Site(), Shape(1, 0, 1, 1), run, aisc), chain.path, stage))
    assert "trap : TERM USR1 USR2" in text
    (run / "launch.sbatch").write_text(text)
    return run / "launch.sbatch"


def run_job(path: Path, job: int, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs a job's script by bash, in the environment of its second start."""
    slurm = {"SLURM_JOB_ID": str(job), "SLURM_RESTART_COUNT": "1", "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_END_TIME": "1999999999"}
    env = {**os.environ, **slurm, **more}
    return subprocess.run(["bash", str(path)], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_a_training_that_gave_up_is_told_to_the_stages_behind_it(chain: ChainFolder) -> None:
    run = chain.run_of("sft").path
    write_start(run, JobStart(job_id=10, stage="train", restart=0, began=1.0, nodes=["n1"], gpus_per_node=0, ended=2.0, verdict="requeued"))
    done = run_job(job_script(chain, "sft", (sys.executable, "-m", "cli.main")), 10)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"stage sft: gave up\n{chain.run_of('dpo').name}: train (job 11) is cancelled" in done.stdout
    states = current_states(chain)
    assert [stage.state for stage in states] == ["failed", "cancelled", "cancelled"]
    assert "1 starts of job 10 came no further than step 0" in states[0].cause


@pytest.mark.parametrize(
    ("fails", "code", "said"),
    [
        ("no step", 75, ["chain begin", "job begin", "job end", "chain end 75", "own 75"]),
        ("job begin", 2, ["chain begin", "job begin", "chain end 2", "own 2"]),
        ("chain begin", 2, ["chain begin", "own 2"]),
    ],
)
def test_the_end_is_told_once_with_the_exit_code_kept(chain: ChainFolder, fails: str, code: int, said: list[str]) -> None:
    log = chain.path.parent / "log"
    path = job_script(chain, "sft", (str(chain.path.parent / "bin" / "aisc"),), f"trap 'echo own $? >> {log}' EXIT")
    assert run_job(path, 10, FAILS=fails).returncode == code
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [" ".join([*line[:2], *line[4:]]) if line[1] in ("end", "begin") and line[0] == "chain" else " ".join(line[:2]) for line in lines] == said


def test_a_script_that_leaves_before_its_record_is_a_failure(chain: ChainFolder) -> None:
    place = {"SLURM_JOB_ID": "11", "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_END_TIME": "1999999999"}
    assert "evaluate" not in end_job(chain, "dpo", 0, place) and read_start(chain.run_of("dpo").path, 11, 0) is None
    said = end_job(chain, "dpo", 1, place)
    assert said.startswith("stage dpo: failed") and "eval (job 12) is cancelled" in said
    assert [stage.state for stage in current_states(chain)][1:] == ["failed", "cancelled"]


@pytest.mark.parametrize(
    ("does", "code", "cause"),
    [
        ("echo 'failed: the forgetting gate tripped: loss 2.1 -> 2.9; bound +0.05' >&2; exit 1", 1, "the forgetting gate tripped: loss 2.1"),
        ("kill -KILL $$", 1, "it was killed by SIGKILL"),
    ],
)
def test_a_stage_that_fails_here_says_why(chain: ChainFolder, does: str, code: int, cause: str) -> None:
    info = chain.info()
    chain.write(dataclasses.replace(info, stages=[dataclasses.replace(info.stages[2], former=None)]))
    assert run_stages(chain, {}, Runner(chain, ["bash", "-c", does]), lambda stage, was_done: None) == code
    (stage,) = current_states(chain)
    assert stage.state == "failed" and stage.cause.startswith(cause)


def test_a_gate_that_tripped_in_a_job_is_the_cause(chain: ChainFolder) -> None:
    run, place = chain.run_of("dpo").path, {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_END_TIME": "1999999999"}
    begin_stage(run, "eval", place)
    said = "failed: the forgetting gate tripped: loss 2.1 -> 2.9; bound +0.05\nsrun: error: n1: task 0: Exited with exit code 1\n"
    (run / "jobs" / "12.out").write_text(said)
    end_stage(run, "eval", 1, place)
    assert end_job(chain, "evaluate", 1, place) == "stage evaluate: failed"
    assert current_states(chain)[2].cause == "the forgetting gate tripped: loss 2.1 -> 2.9; bound +0.05"
