"""A search by Optuna, asked and told: one run per trial. Its controller may be killed at any moment and started again.

What Optuna knows is in study.journal in the sweep's folder; what a trial came to is in its run folder. The journal is
written first (asked), the run folder second, the job third: a controller that starts finds each running trial by its
folder and its job, and submits nothing twice. Pruning uses what runs have anyway: evaluations in metrics.jsonl are
reported as they appear, and a trial without a future is asked to save and stop by the file `stop`.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from configs import atomic
from configs.errors import ConfigError, LaunchError
from configs.runfolder import read_metrics, request_stop
from configs.schema import SweepSection
from launch.sweep import PRUNED_FILE, REFUSED_FILE, Outcome, Sweep, make_point, outcome
from launch.sweep_grid import Axis, Point, Range

if TYPE_CHECKING:
    from optuna import Study

EXIT_DONE, EXIT_FAILED, EXIT_CONTINUE = 0, 1, 75
POLL_S = 1.0
PATIENCE_S = 600.0
MISSING = "a search needs Optuna 4, which is not installed: pip install 'aisc-finetune[sweep]'"
RETRIED = "retried"
# More than a search has trials, so that two seeds share no choice.
SEEDS_APART = 100_000


class Queue(Protocol):
    """Who runs trials: this machine, or Slurm."""

    @property
    def capacity(self) -> int:
        """How many at once."""

    @property
    def stopping(self) -> bool:
        """True when this controller was asked to end."""

    def start(self, point: Point) -> None:
        """Begins a trial's run; one that an earlier controller began is taken over."""

    def is_over(self, point: Point) -> bool:
        """True when nothing of it runs or waits any more."""


@dataclass(frozen=True, slots=True)
class Search:
    """A search: its folder, what may vary, how; `freeze` composes a trial's configuration or raises ConfigError."""

    sweep: Sweep
    axes: tuple[Axis | Range, ...]
    section: SweepSection
    freeze: Callable[[Point], str]
    tell: Callable[[Outcome], None]


def load_optuna() -> Any:
    """Returns Optuna, told to keep quiet.

    Raises:
        ConfigError: it is not installed; names the extra.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(f"sweep.trials: {MISSING}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(sweep: Sweep, section: SweepSection) -> Study:
    """Returns the study in the sweep's folder, a new one the first time."""
    optuna = load_optuna()
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(sweep.path / "study.journal")))
    few = max(2, section.trials // 4)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=min(5, few)) if section.pruner == "median" else optuna.pruners.NopPruner()
    study: Study = optuna.create_study(
        storage=storage, study_name=sweep.name, direction="minimize", load_if_exists=True, pruner=pruner
    )
    return study


@contextmanager
def controlling(sweep: Sweep) -> Iterator[None]:
    """Holds the right to control this search; the system gives it back when the process ends, however it ends.

    Raises:
        LaunchError: another process controls it.
    """
    with (sweep.path / "controller.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LaunchError(f"{sweep.name}: another process controls this search; nothing was done here") from error
        yield


def control(search: Search, queue: Queue) -> int:
    """Runs the search to its end; returns 0, 1 when no trial came to a result, 75 when it was asked to stop."""
    with controlling(search.sweep):
        study = open_study(search.sweep, search.section)
        close_torn(study, search.axes)
        taken: set[int] = set()
        patience = Patience()
        while True:
            running = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]
            for trial in running:
                if trial.number not in taken and begin_patiently(search, queue, point_of(trial, search.axes), patience):
                    taken.add(trial.number)
            running = [t for t in running if t.number not in taken or not follow(search, study, queue, t)]
            if queue.stopping:
                return EXIT_CONTINUE
            missing = wanted(study, search.section) - num_asked(study, search.axes)
            if not running and missing <= 0:
                break
            for _ in range(min(missing, queue.capacity - len(running))):
                ask(study, search)
            if missing <= 0 or len(running) >= queue.capacity:
                time.sleep(POLL_S)
        return EXIT_DONE if any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)) else EXIT_FAILED


def distributions(axes: Sequence[Axis | Range]) -> dict[str, Any]:
    """Returns Optuna's distribution of each key."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for axis in axes:
        if isinstance(axis, Axis):
            found[axis.key] = CategoricalDistribution(axis.values)
        elif axis.kind == "int":
            found[axis.key] = IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        else:
            found[axis.key] = FloatDistribution(axis.low, axis.high, log=axis.log)
    return found


def ask(study: Study, search: Search) -> None:
    """Lets Optuna choose the next trial. The sampler is seeded by the trial's number: a restart changes no choice."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = SEEDS_APART * search.section.seed + len(study.get_trials(deepcopy=False))
    startup = min(10, max(2, search.section.trials // 3))
    study.sampler = (
        RandomSampler(seed=seed) if search.section.sampler == "random" else TPESampler(seed=seed, n_startup_trials=startup)
    )
    study.ask(fixed_distributions=distributions(search.axes))


def point_of(trial: Any, axes: Sequence[Axis | Range]) -> Point:
    """Returns a trial as a point; numbers with six digits, which is what the run gets."""
    return Point(trial.number, {axis.key: _spell(trial.params[axis.key]) for axis in axes})


def _spell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def is_whole(trial: Any, axes: Sequence[Axis | Range]) -> bool:
    """False for a trial whose controller was killed while Optuna chose its values."""
    return all(axis.key in trial.params for axis in axes)


def close_torn(study: Study, axes: Sequence[Axis | Range]) -> None:
    """Ends the trials that never got all their values."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING and not is_whole(trial, axes):
            study.tell(trial.number, state=TrialState.FAIL)


def num_asked(study: Study, axes: Sequence[Axis | Range]) -> int:
    """Returns how many trials were chosen so far."""
    return sum(trial.state.name != "WAITING" and is_whole(trial, axes) for trial in study.get_trials(deepcopy=False))


def wanted(study: Study, section: SweepSection) -> int:
    """Returns how many trials there are to be: `sweep.trials`, and one more for each failed one that is tried again."""
    return section.trials + len(study.user_attrs.get(RETRIED, []))


class Patience:
    """How long a queue may refuse: a controller of Slurm that is restarted is back within minutes."""

    def __init__(self) -> None:
        self._since: float | None = None

    def refused(self, error: LaunchError) -> None:
        """Takes a refusal; raises it after ten minutes of nothing else."""
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since > PATIENCE_S:
            raise error

    def accepted(self) -> None:
        """Forgets earlier refusals."""
        self._since = None


def begin_patiently(search: Search, queue: Queue, point: Point, patience: Patience) -> bool:
    """Begins a trial; returns False when the queue refuses now, so that it is asked again."""
    try:
        begin(search, queue, point)
    except LaunchError as error:
        patience.refused(error)
        time.sleep(POLL_S)
        return False
    patience.accepted()
    return True


def begin(search: Search, queue: Queue, point: Point) -> None:
    """Makes a trial's run folder and starts it; a configuration that cannot be is a failed trial, not the end."""
    run = search.sweep.run_of(point.number)
    if not (run.path / "point.json").exists():
        try:
            make_point(run.path, point, search.freeze(point))
        except ConfigError as error:
            make_point(run.path, point, "")
            atomic.write_json(run.path / REFUSED_FILE, {"code": 2, "cause": str(error)})
            return
    if not (run.path / REFUSED_FILE).exists():
        queue.start(point)


def follow(search: Search, study: Study, queue: Queue, trial: Any) -> bool:
    """Reports a trial's new evaluations, stops it when it has no future, tells how it ended; returns whether it has."""
    from optuna.trial import Trial, TrialState

    point = point_of(trial, search.axes)
    run = search.sweep.run_of(point.number)
    is_over = queue.is_over(point)
    found = outcome(search.sweep, point)
    live = Trial(study, trial._trial_id)
    for step, loss in evaluations(read_metrics(run.path)).items():
        if step not in trial.intermediate_values:
            live.report(loss, step)
    if not is_over:
        has_mark = (run.path / PRUNED_FILE).exists()
        if not has_mark and found.state == "running" and live.should_prune():
            atomic.write_file(run.path / PRUNED_FILE, "")
            has_mark = True
        # Again for each attempt: a job that was preempted meanwhile starts one that has not heard of it.
        if has_mark and (attempts := run.attempts()) and not attempts[-1].stop_requested():
            request_stop(run.path)
        return False
    if found.state == "done" and found.eval_loss is not None:
        study.tell(trial.number, found.eval_loss)
    elif found.state == "pruned":
        study.tell(trial.number, state=TrialState.PRUNED)
    elif queue.stopping:
        return False
    else:
        if found.state == "waiting":
            atomic.write_json(run.path / REFUSED_FILE, {"code": 1, "cause": "its job is gone: cancelled, or ended without a word"})
            found = outcome(search.sweep, point)
        study.tell(trial.number, state=TrialState.FAIL)
    search.tell(found)
    return True


def evaluations(lines: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Returns eval_loss by step; the one before training is the same for every trial and left out."""
    return {int(line["step"]): float(line["eval_loss"]) for line in lines if "eval_loss" in line and line["step"] > 0}


def enqueue_failed(sweep: Sweep, section: SweepSection) -> list[int]:
    """Puts the values of failed trials first in the queue of trials; returns the numbers of the failed ones."""
    study = open_study(sweep, section)
    already = list(study.user_attrs.get(RETRIED, []))
    failed = [t for t in study.get_trials(deepcopy=False) if t.state.name == "FAIL" and t.params and t.number not in already]
    for trial in failed:
        study.enqueue_trial(trial.params)
    study.set_user_attr(RETRIED, [*already, *(trial.number for trial in failed)])
    return [trial.number for trial in failed]
