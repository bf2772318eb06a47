"""Tensors, optimizer state and random state through a checkpoint, bitwise. One process; ranks are in tests/kills."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configs.errors import CheckpointError
from configs.runfolder import RunFolder, Superseded, read_events
from configs.schema import EngineSection, TrainingSection
from tests.kills import saver
from train.checkpoint import DTYPE_NAMES, CheckpointReader, from_array, load, start_attempt, to_array
from train.checkpoint_files import Ranks
from train.checkpoint_reading import checkpoint_of
from train.checkpointer import Checkpointer
from train.distributed import Context
from train.engines.ddp import DdpEngine
from train.shard_files import Block
from train.shards import LocalShard

CONTEXT = Context(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def own_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


class Dropping(nn.Module):
    """A model whose loss depends on the random state; wrapped as Scores is."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


def built(optimizer: str = "adamw") -> tuple[DdpEngine, nn.Module]:
    module = Dropping()
    engine = DdpEngine(EngineSection(), TrainingSection(), CONTEXT)
    return engine, prepared(engine, module, optimizer)


def prepared(engine: DdpEngine, module: nn.Module, optimizer: str = "adamw") -> nn.Module:
    kinds: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}

    def make(named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        trained = [parameter for _, parameter in named if parameter.requires_grad]
        made: torch.optim.Optimizer = kinds[optimizer](trained, lr=0.1)
        return made

    return engine.prepare(module, make)  # type: ignore[arg-type]


def steps(engine: DdpEngine, module: nn.Module, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        loss = module(torch.ones(2, 4)).square().sum()
        engine.backward(loss, last=True)
        engine.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("dtype", list(DTYPE_NAMES))
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 5), (0, 4)])
def test_every_type_keeps_its_bits(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape) * 100).to(dtype)
    back = from_array(to_array(tensor).copy(), DTYPE_NAMES[dtype])
    assert back.dtype == dtype and back.shape == shape
    assert torch.equal(back.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_going_on_is_bitwise_the_same_with_dropout(tmp_path: Path, optimizer: str) -> None:
    run = RunFolder(tmp_path / "run")
    engine, module = built(optimizer)
    start = start_attempt(run, {"store": "s"}, CONTEXT)
    assert start.checkpoint is None and start.skipped == []
    steps(engine, module, 3)
    checkpointer = Checkpointer(start.attempt, run, CONTEXT, keep=1)
    state = {"step": 3, "best_step": None, "skip": [1]}
    checkpointer.save(3, engine.state(), state)
    # Weights, random state and counters go on changing while the checkpoint is written.
    expected = steps(engine, module, 3), {name: shard.tensor.clone() for name, (shard,) in engine.state().items()}
    state["skip"].append(2)  # type: ignore[attr-defined]
    checkpointer.wait()

    torch.manual_seed(999)
    engine, module = built(optimizer)
    again = start_attempt(run, {"store": "s"}, CONTEXT)
    assert again.checkpoint is not None and again.attempt.number == 2
    assert load(again.checkpoint, engine, CONTEXT, seed=1) == {"step": 3, "best_step": None, "skip": [1]}
    assert steps(engine, module, 3) == expected[0]
    after = engine.state()
    assert after.keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        assert torch.equal(after[name][0].tensor, tensor), name


def test_events_and_retention(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    engine, module = built()
    start = start_attempt(run, {}, CONTEXT)
    checkpointer = Checkpointer(start.attempt, run, CONTEXT, keep=1)
    for step in (1, 2, 3):
        steps(engine, module, 1)
        checkpointer.save(step, engine.state(), {"step": step, "best_step": 1})
        checkpointer.wait()
    kinds = [event["event"] for event in read_events(run.path)]
    assert kinds == ["saving", "saved", "saving", "saved", "saving", "saved", "removed"]
    assert sorted(path.name for path in start.attempt.checkpoints.iterdir()) == ["step-00000001", "step-00000003"]
    assert CheckpointReader(checkpoint_of(run, 1)).read("optimizer.0.weight.step").item() == 1.0
    saved = [event for event in read_events(run.path) if event["event"] == "saved"]
    assert all(event["bytes"] > 0 and 0 < event["stall_s"] < 60 and event["waited_s"] == 0 for event in saved)
    assert checkpointer.published is not None and checkpointer.published[0] == 3 and checkpointer.num_waits == 0


def test_a_transposed_tensor_is_saved_as_it_reads(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    start = start_attempt(run, {}, CONTEXT)
    tensor = torch.arange(6.0).reshape(2, 3).T
    checkpointer = Checkpointer(start.attempt, run, CONTEXT, keep=1)
    checkpointer.save(1, {"model.w": [LocalShard.whole(tensor)]}, {})
    checkpointer.wait()
    assert torch.equal(CheckpointReader(checkpoint_of(run, 1)).read("model.w"), tensor)


def test_a_save_waits_for_the_one_before_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    start = start_attempt(run, {}, CONTEXT)
    checkpointer = Checkpointer(start.attempt, run, CONTEXT, keep=9)
    weight = torch.zeros(2_000_000)
    for step in range(1, 5):
        weight.fill_(step)
        checkpointer.save(step, {"model.w": [LocalShard.whole(weight)]}, {})
    checkpointer.wait()
    assert checkpointer.num_waits >= 1, "hashing and flushing 8 MB took no time at all"
    for step in range(1, 5):
        assert CheckpointReader(checkpoint_of(run, step)).read_flat("model.w", 0, 2_000_000).eq(step).all()


def test_a_state_that_changes_its_shape_is_a_bug_not_a_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    start = start_attempt(run, {}, CONTEXT)
    checkpointer = Checkpointer(start.attempt, run, CONTEXT, keep=9)
    checkpointer.save(1, {"model.w": [LocalShard.whole(torch.zeros(2))]}, {})
    for tensors, message in (
        ({"model.w": [LocalShard.whole(torch.zeros(3))]}, r"\(3,\), was torch.float32 \(2,\)"),
        ({"model.v": [LocalShard.whole(torch.zeros(2))]}, "other blocks than at the first checkpoint: model.v, model.w"),
    ):
        with pytest.raises(RuntimeError, match=message):
            checkpointer.save(2, tensors, {})


def test_a_save_that_fails_behind_the_training_is_raised_by_the_next(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    start = start_attempt(run, {}, CONTEXT)
    checkpointer = Checkpointer(start.attempt, run, CONTEXT, keep=9)
    tensors = {"model.w": [LocalShard.whole(torch.zeros(2))]}
    checkpointer.save(1, tensors, {})
    checkpointer.wait()
    start_attempt(run, {}, CONTEXT)
    checkpointer.save(2, tensors, {})
    for again in (checkpointer.wait, lambda: checkpointer.save(3, tensors, {})):
        with pytest.raises(Superseded, match="attempt 2 has started since"):
            again()
    assert checkpointer.has_failed
    checkpointer.close()
    assert os.listdir(start.attempt.checkpoints) == ["step-00000001"]


def saved_without(tmp_path: Path, *names: str) -> tuple[RunFolder, DdpEngine]:
    """Saves a checkpoint that lacks tensors, with honest hashes."""
    run = RunFolder(tmp_path / "run")
    engine, module = built()
    start = start_attempt(run, {}, CONTEXT)
    steps(engine, module, 1)
    blocks = {name: Block.whole(to_array(s.tensor), "F32") for name, (s,) in engine.state().items() if name not in names}
    blocks["rng.00000.cpu"] = Block.whole(to_array(torch.get_rng_state()), "U8")
    saver.save_blocks(start.attempt, 1, blocks, {"step": 1}, Ranks.single())
    return run, engine


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["optimizer.2.bias.exp_avg"], "has no optimizer state exp_avg of 2.bias"),
        (["optimizer.0.bias.step", "optimizer.0.bias.exp_avg"], "has no optimizer state exp_avg, step of 0.bias"),
        (["model.2.bias"], "has no tensor model.2.bias"),
    ],
)
def test_missing_state_is_never_started_afresh(tmp_path: Path, names: list[str], message: str) -> None:
    run, engine = saved_without(tmp_path, *names)
    with pytest.raises(CheckpointError, match=message):
        load(checkpoint_of(run, 1), engine, CONTEXT, seed=1)


def test_a_model_of_another_width_is_refused(tmp_path: Path) -> None:
    run, engine = saved_without(tmp_path)
    module = Dropping()
    module.model[2] = nn.Linear(8, 3)
    prepared(engine, module)
    with pytest.raises(CheckpointError, match=r"model.2.weight has shape \(1, 8\), expected \(3, 8\).* --new") as error:
        load(checkpoint_of(run, 1), engine, CONTEXT, seed=1)
    assert str(error.value).startswith(str(checkpoint_of(run, 1).folder))


def test_a_model_with_fewer_parameters_is_refused(tmp_path: Path) -> None:
    run, engine = saved_without(tmp_path)
    module = Dropping()
    module.model[2].requires_grad_(False)
    prepared(engine, module)
    with pytest.raises(CheckpointError, match="more tensors that this run does not have"):
        load(checkpoint_of(run, 1), engine, CONTEXT, seed=1)


def test_another_number_of_ranks_draws_from_seed_step_and_rank(tmp_path: Path) -> None:
    run, engine = saved_without(tmp_path)
    checkpoint = checkpoint_of(run, 1)
    draws = set()
    for rank in (0, 1, 0):
        context = dataclasses.replace(CONTEXT, rank=rank, world_size=2)
        torch.manual_seed(5)
        load(checkpoint, engine, context, seed=1)
        draws.add(torch.rand(()).item())
    assert len(draws) == 2


def test_a_changed_store_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    start_attempt(run, {"store": "a" * 64}, CONTEXT)
    with pytest.raises(CheckpointError, match=r"store fingerprint\) changed: aaaaaaaaaaaa.. in .*, bbbbbbbbbbbb.. now"):
        start_attempt(run, {"store": "b" * 64}, CONTEXT)
    assert len(run.attempts()) == 1
