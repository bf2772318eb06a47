"""A search by Optuna: asked and told through run folders; a controller that is killed loses and repeats nothing."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from configs import atomic
from configs.errors import ConfigError, LaunchError
from configs.jsonlines import append_line
from configs.runfolder import Attempt
from configs.schema import SweepSection
from launch import search
from launch.search import Search, control, controlling, distributions, enqueue_failed, open_study
from launch.sweep import Outcome, Sweep, SweepInfo, create, outcomes
from launch.sweep_grid import Axis, Point, Range

AXES = (Range("optimizer.lr", "float", 1e-5, 1e-1, True), Axis("adapter.rank", ("8", "16")))
STEPS = (10, 20, 30)


class Killed(BaseException):
    """Stands for SIGKILL: nothing below catches it."""


class Place:
    """Runs trials by writing what runs write: one evaluation at each look, until the end or until asked to stop."""

    stopping = False

    def __init__(self, sweep: Sweep, capacity: int = 2, *, dies_after: int = 10**6, fails: tuple[int, ...] = ()) -> None:
        self.capacity = capacity
        self.started: list[int] = []
        self._sweep = sweep
        self._left = dies_after
        self._fails = fails

    def start(self, point: Point) -> None:
        self.started.append(point.number)
        run = self._sweep.run_of(point.number)
        if not run.attempts():
            attempt = run.claim()
            attempt.write_start({"total_steps": STEPS[-1]}, None)

    def is_over(self, point: Point) -> bool:
        self._left -= 1
        if self._left < 0:
            raise Killed
        attempts = self._sweep.run_of(point.number).attempts()
        if not attempts:
            return True
        attempt = attempts[-1]
        if attempt.exit_path.exists():
            return True
        self._advance(attempt, point)
        return attempt.exit_path.exists()

    def _advance(self, attempt: Attempt, point: Point) -> None:
        done = len(attempt.metrics_path.read_text().splitlines()) if attempt.metrics_path.exists() else 0
        if attempt.stop_requested():
            attempt.finish("stopped", 75, "asked to stop", kind="user")
        elif point.number in self._fails:
            attempt.finish("failed", 1, "loss nan is not finite", kind="failed")
        elif done < len(STEPS):
            append_line(attempt.metrics_path, {"step": STEPS[done], "eval_loss": loss_of(point)})
        else:
            atomic.write_json(attempt.run / "result.json", {"eval_loss": loss_of(point)})
            attempt.finish("done", 0)


def loss_of(point: Point) -> float:
    """The further from 1e-3, the worse."""
    import math

    return 1 + abs(math.log10(float(point.values["optimizer.lr"])) + 3)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setattr(search, "POLL_S", 0.0)
    info = SweepInfo(stem="s", kind="search", where="slurm", folder="/", words=[], axes=[], throttle=2, trials=8)
    return create(tmp_path / "s-123456", info, None, [])


def make(sweep: Sweep, told: list[Outcome], **section: Any) -> Search:
    return Search(sweep, AXES, SweepSection(trials=8, **section), lambda point: f"# {point}\n", told.append)


def test_eight_trials_the_bad_ones_pruned(sweep: Sweep) -> None:
    told: list[Outcome] = []
    place = Place(sweep)
    assert control(make(sweep, told), place) == 0
    assert sorted(one.point.number for one in told) == sorted(place.started) == list(range(8))
    states = [one.state for one in outcomes(sweep)]
    assert states.count("pruned") >= 1 and states.count("done") >= 2 and len(states) == 8
    done = [loss_of(one.point) for one in told if one.state == "done"]
    assert all(loss_of(one.point) > min(done) for one in told if one.state == "pruned")
    study = open_study(sweep, SweepSection(trials=8))
    assert study.best_value == pytest.approx(min(done), rel=1e-4)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize("dies_after", [0, 1, 3, 6, 11])
def test_a_killed_controller_repeats_nothing_and_chooses_the_same(sweep: Sweep, tmp_path: Path, dies_after: int) -> None:
    with pytest.raises(Killed):
        control(make(sweep, [], pruner="none", sampler="random"), Place(sweep, dies_after=dies_after))
    place = Place(sweep)
    assert control(make(sweep, [], pruner="none", sampler="random"), place) == 0
    attempts = [len(one.run.attempts()) for one in outcomes(sweep)]
    assert attempts == [1] * 8
    other = create(tmp_path / "s-654321", sweep.info(), None, [])
    assert control(make(other, [], pruner="none", sampler="random"), Place(other)) == 0
    assert [point.values for point in other.points()] == [point.values for point in sweep.points()]


def test_failed_trials_are_told_and_tried_again_on_request(sweep: Sweep) -> None:
    told: list[Outcome] = []
    assert control(make(sweep, told, pruner="none"), Place(sweep, fails=(2,))) == 0
    assert [(one.point.number, one.state, one.cause) for one in told if one.state != "done"] == [(2, "failed", "loss nan is not finite")]
    assert enqueue_failed(sweep, SweepSection(trials=8)) == [2]
    assert enqueue_failed(sweep, SweepSection(trials=8)) == []
    place = Place(sweep)
    assert control(make(sweep, told, pruner="none"), place) == 0
    assert place.started == [8] and told[-1].point.values == sweep.points()[2].values


def test_a_configuration_that_cannot_be_is_a_failed_trial(sweep: Sweep) -> None:
    def refuse(point: Point) -> str:
        if point.number == 1:
            raise ConfigError("adapter.rank=16: too large")
        return ""

    told: list[Outcome] = []
    place = Place(sweep)
    assert control(Search(sweep, AXES, SweepSection(trials=4), refuse, told.append), place) == 0
    assert [(one.point.number, one.cause) for one in told if one.state == "failed"] == [(1, "adapter.rank=16: too large")]
    assert 1 not in place.started


def test_two_controllers_at_once_are_refused(sweep: Sweep) -> None:
    with controlling(sweep), pytest.raises(LaunchError, match="another process controls this search"):
        control(make(sweep, []), Place(sweep))


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_optuna(name: str, *rest: Any) -> Any:
        if name.startswith("optuna"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_optuna)
    with pytest.raises(ConfigError, match=r"pip install 'aisc-finetune\[sweep\]'"):
        search.load_optuna()


def test_distributions() -> None:
    found = distributions((*AXES, Range("x", "int", 8, 64)))
    assert found["optimizer.lr"].log and found["adapter.rank"].choices == ("8", "16")
    assert (found["x"].low, found["x"].high) == (8, 64)
