"""A sweep's folder: what was swept, its points' runs inside it, what came of them. Reads files only; torch-free.

    runs/NAME-2b81f0/sweep.json           what was swept, from which words; written once
    runs/NAME-2b81f0/run.yaml             the user's YAML as it was; absent when there was none
    runs/NAME-2b81f0/points.txt           number, run folder, values: what an element of the job array reads
    runs/NAME-2b81f0/NAME-2b81f0-3/       the run of point 3: a run folder like any other, with point.json and launch.yaml
    runs/NAME-2b81f0/best.yaml            the user's YAML with the best point's values
    runs/NAME-2b81f0/compare.svg          losses by setting
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from configs import atomic
from configs.errors import LaunchError
from configs.runfolder import RunFolder, read_json, read_metrics, state_of
from launch.records import read_starts
from launch.sweep_grid import Point

SEED = "training.seed"
# Written by us into a run's folder, beside what the run itself writes.
POINT_FILE, REFUSED_FILE, PRUNED_FILE = "point.json", "refused.json", "pruned"
UNFINISHED = ("waiting", "running", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepInfo:
    """sweep.json.

    Attributes:
        stem: first part of the name; kind: grid or search; where: local or slurm.
        folder: working directory of the command, which relative paths mean.
        words: what was given beside the YAML and the swept keys; axes: each swept key and its values.
    """

    stem: str
    kind: str
    where: str
    folder: str
    words: list[str]
    axes: list[dict[str, Any]]
    throttle: int
    trials: int = 0
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def short(self) -> str:
        """The six characters by which commands know it."""
        return self.name.rsplit("-", 1)[-1]

    @property
    def yaml_path(self) -> Path | None:
        """The copy of the user's YAML."""
        path = self.path / "run.yaml"
        return path if path.exists() else None

    def info(self) -> SweepInfo:
        """Returns sweep.json.

        Raises:
            LaunchError: this is no sweep's folder.
        """
        values = read_json(self.path / "sweep.json")
        if values is None:
            raise LaunchError(f"{self.path}: no sweep.json there; expected the folder of a sweep")
        return SweepInfo(**values)

    def run_of(self, number: int) -> RunFolder:
        """Returns the run folder of a point."""
        return RunFolder(self.path / f"{self.name}-{number}")

    def points(self) -> list[Point]:
        """Returns the points that were made so far, by number."""
        found = [values for path in self.path.glob(f"*/{POINT_FILE}") if (values := read_json(path)) is not None]
        return sorted((Point(int(v["number"]), dict(v["values"])) for v in found), key=lambda point: point.number)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a point: state is waiting, running, done, stopped, pruned or failed."""

    point: Point
    run: RunFolder
    state: str
    eval_loss: float | None
    cause: str


@dataclass(frozen=True, slots=True)
class Setting:
    """The points that differ in their seed only.

    Attributes:
        losses: eval_loss of those that are done, by point number.
        failed: `seed 3: cause` of those that failed.
    """

    values: dict[str, str]
    losses: dict[int, float]
    failed: list[str]
    waiting: int

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.losses.values()) if self.losses else None

    @property
    def sd(self) -> float | None:
        """Standard deviation of a sample (n - 1); None for fewer than two."""
        return statistics.stdev(self.losses.values()) if len(self.losses) > 1 else None

    @property
    def best(self) -> float | None:
        return min(self.losses.values(), default=None)


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """One line of the list of runs: states of the points, the lowest loss, the steps of the point that came furthest."""

    name: str
    num_points: int
    counts: dict[str, int]
    best: float | None
    step: int
    total_steps: int
    started: float

    @property
    def state(self) -> str:
        """`5 done, 1 failed`."""
        order = ("done", "running", "waiting", "stopped", "pruned", "failed")
        return ", ".join(f"{self.counts[state]} {state}" for state in order if self.counts.get(state)) or "nothing yet"


def create(
    path: Path,
    info: SweepInfo,
    yaml_text: str | None,
    frozen: Sequence[tuple[Point, str]],
    plans: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
) -> Sweep:
    """Makes the folder of a sweep with its points' frozen configurations, whole or not at all; one that exists is kept.

    Args:
        path: where; info: what is swept; yaml_text: the user's YAML.
        frozen: each point of a grid with its configuration.
        plans: plan.json by point, of those whose cost is known.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with atomic.temporary_folder(path) as temporary:
        atomic.write_json(temporary / "sweep.json", {**asdict(info), "created": time.time()})
        if yaml_text is not None:
            atomic.write_file(temporary / "run.yaml", yaml_text)
        for point, text in frozen:
            folder = temporary / f"{path.name}-{point.number}"
            make_point(folder, point, text)
            if point.number in plans:
                atomic.write_json(folder / "plan.json", plans[point.number])
        if frozen:
            atomic.write_file(temporary / "points.txt", points_text(Sweep(path), [point for point, _ in frozen]))
        atomic.publish_folder(temporary, path)
    return Sweep(path)


def make_point(folder: Path, point: Point, launch_yaml: str) -> None:
    """Makes a point's run folder: its values and its frozen configuration."""
    folder.mkdir(mode=0o700, exist_ok=True)
    atomic.write_file(folder / "launch.yaml", launch_yaml)
    atomic.write_json(folder / POINT_FILE, {"number": point.number, "values": point.values})


def points_text(sweep: Sweep, points: Sequence[Point]) -> str:
    """Returns points.txt: number, absolute run folder and values, with a tab between them."""
    return "".join(f"{point.number}\t{sweep.run_of(point.number).path.absolute()}\t{point}\n" for point in points)


def all_sweeps(parent: Path) -> list[Sweep]:
    """Returns the sweeps in `parent`, newest first."""
    found = [path.parent for path in parent.glob("*/sweep.json")]
    return [Sweep(path) for path in sorted(found, key=lambda path: (path / "sweep.json").stat().st_mtime, reverse=True)]


def find_sweep(text: str, parent: Path) -> Sweep | None:
    """Returns the sweep that `text` means: a folder, a name, its six characters, or the newest of a first part."""
    path = Path(text).expanduser()
    if (path / "sweep.json").is_file():
        return Sweep(path)
    sweeps = all_sweeps(parent)
    exact = [sweep for sweep in sweeps if text in (sweep.name, sweep.short)]
    return next(iter([*exact, *(sweep for sweep in sweeps if sweep.name.startswith(f"{text}-"))]), None)


def outcome(sweep: Sweep, point: Point) -> Outcome:
    """Returns what has become of a point."""
    run = sweep.run_of(point.number)
    status = state_of(run.path)
    loss = (read_json(run.result_path) or {}).get("eval_loss")
    state, cause = status.state, status.cause
    if state == "new":
        state, cause = _before_first_attempt(sweep, point, run)
    elif (run.path / PRUNED_FILE).exists() and state != "done":
        state, cause = ("pruned" if state == "stopped" else state), ""
    elif state in ("killed", "superseded"):
        state = "stopped"
    return Outcome(point, run, state, loss if state == "done" else None, cause)


def _before_first_attempt(sweep: Sweep, point: Point, run: RunFolder) -> tuple[str, str]:
    refused = read_json(run.path / REFUSED_FILE)
    if refused is not None:
        return "failed", str(refused["cause"])
    starts = read_starts(run.path)
    if starts and starts[-1].verdict in ("failed", "gave up"):
        printed = [*sweep.path.glob(f"jobs/*_{point.number}.out"), *run.path.glob("jobs/*.out")]
        newest = max(printed, key=lambda path: path.stat().st_mtime, default=None)
        return "failed", (last_words(newest, besides=starts[-1].cause) if newest is not None else "") or starts[-1].cause
    return ("running" if starts and starts[-1].verdict is None else "waiting"), ""


def last_words(path: Path, offset: int = 0, besides: str = "") -> str:
    """Returns the message after the last `error:` or `failed:` in what was printed from byte `offset` on.

    Args:
        path: of the output.
        offset: where this start begins.
        besides: a message to pass over: the job's own verdict, which says less than the run.
    """
    lines = path.read_bytes()[offset:].decode(errors="replace").splitlines()
    for number in range(len(lines) - 1, -1, -1):
        word, _, rest = lines[number].partition(": ")
        if word in ("error", "failed") and rest != besides:
            return "\n".join([rest, *(line.strip() for line in lines[number + 1 :] if line.startswith("  "))])
    return ""


def outcomes(sweep: Sweep) -> list[Outcome]:
    """Returns what has become of each point, by number."""
    return [outcome(sweep, point) for point in sweep.points()]


def settings_of(found: Sequence[Outcome]) -> list[Setting]:
    """Returns the settings, seeds put together, the lowest mean first and those without a result last."""
    groups: dict[tuple[tuple[str, str], ...], list[Outcome]] = {}
    for one in found:
        key = tuple((name, value) for name, value in one.point.values.items() if name != SEED)
        groups.setdefault(key, []).append(one)
    settings = [
        Setting(
            values=dict(key),
            losses={one.point.number: one.eval_loss for one in group if one.eval_loss is not None},
            failed=[_failure(one) for one in group if one.state == "failed"],
            waiting=sum(one.state in UNFINISHED for one in group),
        )
        for key, group in groups.items()
    ]
    return sorted(settings, key=lambda setting: (setting.mean is None, setting.mean or 0.0))


def _failure(one: Outcome) -> str:
    seed = one.point.values.get(SEED)
    which = f"seed {seed}" if seed is not None else f"point {one.point.number}"
    cause = one.cause.splitlines()[0] if one.cause else "no reason was left"
    return f"{which}: {cause}"


def best_point(found: Sequence[Outcome]) -> Outcome | None:
    """Returns the best seed of the setting with the lowest mean eval_loss: one lucky seed does not choose the setting."""
    settings = [setting for setting in settings_of(found) if setting.losses]
    if not settings:
        return None
    number = min(settings[0].losses, key=lambda key: settings[0].losses[key])
    return next(one for one in found if one.point.number == number)


def summarize_sweep(folder: Path) -> SweepSummary:
    """Returns what the list of runs shows of a sweep, as one line."""
    sweep = Sweep(folder)
    found = outcomes(sweep)
    info = sweep.info()
    lines = [read_metrics(one.run.path) for one in found]
    starts = [start for one in found for attempt in one.run.attempts() if (start := attempt.read_start())]
    return SweepSummary(
        name=sweep.name,
        num_points=info.trials or len(found),
        counts=dict(Counter(one.state for one in found)),
        best=min((one.eval_loss for one in found if one.eval_loss is not None), default=None),
        step=max((int(line["step"]) for one in lines for line in one), default=0),
        total_steps=max((int(start.get("total_steps", 0)) for start in starts), default=0),
        started=info.created,
    )


def compared_lines(found: Sequence[Outcome]) -> dict[str, list[dict[str, Any]]]:
    """Returns the metric lines of one run per setting, by its values: what compare.svg draws, at most ten settings."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for setting in settings_of(found)[:10]:
        numbers = sorted(setting.losses, key=lambda key: setting.losses[key])
        if numbers:
            name = " ".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in setting.values.items())
            run = next(one.run for one in found if one.point.number == numbers[0])
            lines[name or run.name] = read_metrics(run.path)
    return lines


def forget_refusal(run: RunFolder) -> None:
    """Makes a point that never came to an attempt wait again; what attempts left stays."""
    (run.path / REFUSED_FILE).unlink(missing_ok=True)
