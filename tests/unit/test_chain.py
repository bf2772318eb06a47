"""A chain's folder and what its jobs record: a changed model is refused, a stage that fails is told to those behind it."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

import launch.chain
from cli.chain_plan import ChainPlan, StagePlan, write_chain
from cli.main import main
from configs import atomic
from configs.chain import is_chain, read_chain
from configs.errors import CheckpointError, LaunchError
from configs.schema import RunConfig
from launch.chain import ChainFolder, begin, end, verified_model
from launch.chain_queue import end_job
from launch.chain_states import current_states
from launch.explain import cancelled_mark
from launch.records import JobStart, read_start, write_start
from tests.small_chain import small_chain

if TYPE_CHECKING:
    from cli.configured import Given

JOB = {"SLURM_JOB_ID": "10", "SLURM_RESTART_COUNT": "0"}


@pytest.fixture
def chain(tmp_path: Path) -> ChainFolder:
    """A chain of sft, dpo and evaluate; sft is done, job 11 (dpo) follows job 10, job 12 (eval) follows 11."""
    return small_chain(tmp_path)


def start(stage: str, job_id: int, verdict: str, cause: str = "") -> JobStart:
    return JobStart(job_id=job_id, stage=stage, restart=0, began=1.0, nodes=["n1"], gpus_per_node=1, ended=2.0, verdict=verdict, cause=cause)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("model.safetensors", b"weightS", "expected"), ("model.safetensors", None, "missing"), ("more.json", b"{}", "not written by the run")],
)
def test_a_model_that_is_not_what_the_run_wrote(chain: ChainFolder, name: str, content: bytes | None, said: str) -> None:
    run = chain.run_of("sft")
    assert list(verified_model(run)) == ["model/model.safetensors"]
    path = run.path / "model" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as error:
        verified_model(run)
    assert str(path) in str(error.value) and "aisc verify" in str(error.value)


def test_a_job_takes_a_verified_model(chain: ChainFolder) -> None:
    assert main(["chain", "begin", str(chain.path), "dpo"]) == 0
    stage = chain.info().stages[1]
    assert stage.state == "running" and stage.taken == verified_model(chain.run_of("sft"))


def test_a_job_refuses_a_changed_model_and_tells_those_behind_it(chain: ChainFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = chain.path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho n1\n")
    scontrol.chmod(0o700)
    monkeypatch.setenv("PATH", f"{chain.path}:{os.environ['PATH']}")
    (chain.run_of("sft").path / "model" / "model.safetensors").write_bytes(b"weightS")
    for name, value in {"SLURM_JOB_ID": "11", "SLURM_RESTART_COUNT": "0", "SLURM_JOB_NODELIST": "n1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["chain", "begin", str(chain.path), "dpo"]) == 2
    dpo = chain.run_of("dpo").path
    refused, behind = read_start(dpo, 11, 0), read_start(dpo, 12, 0)
    assert refused is not None and refused.verdict == "failed"
    assert behind is not None and behind.verdict == "cancelled"
    assert [stage.state for stage in current_states(chain)][1:] == ["failed", "cancelled"]


def test_a_training_that_fails_is_told_to_the_stages_behind_it(chain: ChainFolder) -> None:
    write_start(chain.run_of("sft").path, start("train", 10, "failed", "1 of 21 rows cannot be used"))
    said = end_job(chain, "sft", 1, JOB)
    assert f"{chain.run_of('dpo').name}: train (job 11) is cancelled" in said and "eval (job 12) is cancelled" in said
    told = read_start(chain.run_of("dpo").path, 11, 0)
    assert told is not None and told.cause == "stage sft (job 10) failed: 1 of 21 rows cannot be used"
    assert [stage.state for stage in current_states(chain)] == ["failed", "cancelled", "cancelled"]


def test_a_training_that_is_requeued_is_no_end(chain: ChainFolder) -> None:
    write_start(chain.run_of("sft").path, start("train", 10, "requeued", "preempted"))
    assert end_job(chain, "sft", 1, JOB) == "stage sft: requeued"
    assert read_start(chain.run_of("dpo").path, 11, 0) is None


def test_one_command_at_a_time_runs_a_chain(chain: ChainFolder) -> None:
    with chain.held(), pytest.raises(LaunchError, match="another command runs this chain"), chain.held():
        pass


def test_two_who_change_a_chain_at_once_both_count(chain: ChainFolder) -> None:
    other = threading.Thread(target=end, args=(chain, "dpo", "failed", "of the other"))
    with chain.changing():
        info = chain.info()
        other.start()
        other.join(timeout=0.2)
        info.stages[0].state = "done"
        chain.write(info)
    other.join()
    assert [(stage.state, stage.cause) for stage in chain.info().stages[:2]] == [("done", ""), ("failed", "of the other")]


def test_one_who_waits_too_long_says_for_what(chain: ChainFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.chain, "CHANGE_WAIT_S", 0.1)
    with chain.changing(), pytest.raises(LaunchError, match=r"chain\.json: another process has kept it for 0 s; look at its disk"):
        chain.change("dpo", state="done")


@pytest.mark.parametrize("text", ["{", '{"stem": "onc"}'])
def test_a_damaged_chain_says_how_to_go_on(chain: ChainFolder, text: str) -> None:
    (chain.path / "chain.json").write_text(text)
    with pytest.raises(LaunchError, match="Remove it and give the chain's command again"):
        chain.info()


def test_a_finished_training_does_not_go_over_to_another_beginning(chain: ChainFolder) -> None:
    dpo = chain.run_of("dpo")
    dpo.claim().finish("done", 0)
    atomic.write_json(dpo.result_path, {})
    chain.change("dpo", state="done", taken={"model/model.safetensors": "of a training that was removed by hand"})
    with pytest.raises(CheckpointError, match=f"began from another model of stage sft .* remove {dpo.path}"):
        begin(chain, "dpo")


def test_only_what_is_told_something_else_is_as_new(chain: ChainFolder) -> None:
    stages = [StagePlan(name, cast("Given", None), RunConfig(), identity, merges=False) for name, identity in (("sft", "a"), ("dpo", "b"))]
    told = {"evaluate": ["hk"]}
    write_chain(ChainPlan(chain, "onc", stages, told), "train", ["onc.yaml"])
    for name in ("sft", "evaluate"):
        chain.change(name, state="done")
    write_chain(ChainPlan(chain, "onc", stages, {**told, "release": []}), "train", ["onc.yaml"])
    assert [stage.state for stage in chain.info().stages] == ["done", "waiting", "done", "waiting"]
    write_chain(ChainPlan(chain, "onc", stages, {"evaluate": ["medical"]}), "train", ["onc.yaml"])
    assert [stage.state for stage in chain.info().stages] == ["done", "waiting", "waiting"]
    assert chain.info().created == 1.0


def test_what_a_killed_command_left_running_is_stopped(chain: ChainFolder) -> None:
    for job in (11, 12):
        (chain.run_of("dpo").path / "jobs" / f"{job}.json").unlink()
    chain.change("evaluate", state="running", began=time.time())
    with chain.held():
        assert current_states(chain)[2].state == "running"
    stage = current_states(chain)[2]
    assert stage.state == "stopped" and "the same command continues" in stage.cause


def test_a_training_that_gets_ready_is_running(chain: ChainFolder) -> None:
    """Between its beginning and its attempt lie the pre-flight and the loading of libraries, after a requeue too."""
    sft = chain.run_of("sft")
    began = dataclasses.replace(start("train", 10, ""), ended=None, verdict=None)
    for restart in (0, 1):
        begin(chain, "sft")
        assert current_states(chain)[0].state == "stopped"  # nothing says that anybody does
        with chain.held():
            assert current_states(chain)[0].state == "running"
        running = dataclasses.replace(began, restart=restart, began=time.time())
        write_start(sft.path, running)
        assert current_states(chain)[0].state == "running"
        attempt = sft.claim()
        attempt.write_start({}, None)
        atomic.write_json(attempt.exit_path, {"state": "stopped", "kind": "signal", "cause": "SIGTERM", "code": 75})
        assert current_states(chain)[0].state == "stopped"
        write_start(sft.path, dataclasses.replace(running, ended=time.time(), verdict="requeued", cause="SIGTERM"))
        stage = current_states(chain)[0]
        assert (stage.state, stage.cause) == ("waiting", "SIGTERM")
    atomic.write_file(cancelled_mark(sft.path, 10), "")  # aisc runs stop took it out of the queue
    assert current_states(chain)[0].state == "stopped"


def test_a_stage_that_runs_here_after_its_job_failed_is_running(chain: ChainFolder) -> None:
    write_start(chain.run_of("dpo").path, start("eval", 12, "failed", "no such pack"))
    assert current_states(chain)[2].state == "failed"
    chain.change("evaluate", state="running", began=3.0)
    assert current_states(chain)[2].state == "running"


def test_who_wins(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "model: {preset: tiny_llama, tokenizer: .}\ntraining: {seed: 1}\noptimizer: {lr: 1e-4}\nstages:\n"
        "  sft: {data: a.jsonl}\n  dpo: {objective: dpo, data: b.jsonl, training: {seed: 2}, optimizer: {lr: 2e-5}}\n"
    )
    words = [str(tmp_path / "c.yaml"), "training.seed=3", "stages.dpo.optimizer.lr=3e-5"]
    assert is_chain(words) and not is_chain(["training.seed=3"])
    sft, dpo = read_chain(words).stages
    assert [stage.attempted.config.training.seed for stage in (sft, dpo)] == [3, 3]
    assert [stage.attempted.config.optimizer.lr for stage in (sft, dpo)] == [1e-4, 3e-5]
    assert dpo.attempted.config.model == sft.attempted.config.model
    assert [stage.attempted.config.training.seed for stage in read_chain(words[:1]).stages] == [1, 2]


def test_a_stage_s_own_engine_is_the_one_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "model: {preset: tiny_llama, tokenizer: .}\nengine: zero3_offload\nstages:\n"
        "  sft: {data: a.jsonl, engine: zero2}\n  dpo: {objective: dpo, data: b.jsonl}\n"
    )
    for words, names in ([], ["zero2", "zero3"]), (["engine=hsdp"], ["fsdp2", "fsdp2"]), (["stages.dpo.engine=ddp"], ["zero2", "ddp"]):
        engines = [stage.attempted.config.engine for stage in read_chain([str(tmp_path / "c.yaml"), *words]).stages]
        assert [engine.name for engine in engines] == names
        assert [engine.offload_parameters for engine in engines] == [name == "zero3" for name in names]


def test_the_gate_compares_with_where_the_chain_began(tmp_path: Path) -> None:
    """Also for texts of the shared `evaluation`, which the command of the stage does not name."""
    (tmp_path / "c.yaml").write_text("stages: {sft: {data: a.jsonl}, dpo: {objective: dpo, data: b.jsonl}, evaluate: {}}\n")
    words = [str(tmp_path / "c.yaml"), f"model={tmp_path}"]
    for more, base in ((), tmp_path), (("evaluation.base=/models/other",), Path("/models/other")):
        evaluate = read_chain([*words, "evaluation.forgetting=[general.txt]", *more]).evaluate
        assert evaluate is not None and evaluate.words() == ["--base", str(base)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare"], "aisc prepare: this is a chain (stages:); give one stage's YAML"),
        (["train", "-m", "training.seed=1,2"], "aisc train -m: a chain (stages:) cannot be swept"),
    ],
)
def test_verbs_of_one_run_refuse_a_chain(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "experiment=hkgai_chain"]) == 2
    assert said in capsys.readouterr().err
