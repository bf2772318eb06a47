"""What a run's hours went into and what they cost: per start, per run, per project and month. Torch-free.

Hours are GPU-hours: of a start on CPU nodes none are counted, but its nodes' price is. Where a run never saw a GPU, node-
hours stand in for them. The queue costs nothing and is shown apart.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from configs import atomic
from configs.compose import thaw
from configs.errors import UserError
from configs.runfolder import RunFolder
from configs.schema import ClusterSection, RunConfig
from configs.site import Site, parse_site, site_path
from configs.timekeeping import PHASES, UNKNOWN
from launch.live import Accounts, Queue
from launch.records import read_jobs, read_starts
from launch.segments import Segment, segments_of

NAME = "goodput.json"
TOLERANCE_SHARE, TOLERANCE_S = 0.01, 2.0
_ON_CPUS = ("prepare", "export")


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices per hour, and the share that the subsidy pays; None: not stated. `note` says what is missing."""

    per_gpu: float | None = None
    per_node: float | None = None
    subsidy: float | None = None
    currency: str = "HK$"
    source: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Goodput:
    """The account of one run, or of one month of it.

    Attributes:
        queue_s: waited in the queue, all jobs together.
        note: why Slurm's accounting was not compared with; empty when it was.
    """

    run: str
    project: str | None
    segments: tuple[Segment, ...]
    queue_s: float
    prices: Prices = field(default_factory=Prices)
    note: str = ""
    as_of: float = 0.0

    @property
    def unit(self) -> str:
        """What its hours are."""
        return "GPU-hours" if self._has_gpus or not self.segments else "node-hours"

    @property
    def hours(self) -> dict[str, float]:
        """Hours by phase, in the order of PHASES; they sum to `total`."""
        found = dict.fromkeys(PHASES, 0.0)
        for segment in self.segments:
            for phase, seconds in segment.seconds().items():
                found[phase] = found.get(phase, 0.0) + seconds * self.width(segment) / 3600
        return found

    @property
    def total(self) -> float:
        """All its hours."""
        return sum(segment.elapsed_s * self.width(segment) for segment in self.segments) / 3600

    @property
    def trained(self) -> float | None:
        """Share of its hours in which steps were made that had not been made before; the first step of a start counts."""
        hours = self.hours
        return (hours["train"] + hours["compile"]) / self.total if self.total else None

    @property
    def cost(self) -> float | None:
        """List price of its hours in the queue's nodes; None when the price is not known, or no job was billed."""
        billed = [segment for segment in self.segments if segment.job_id is not None]
        return sum(self.cost_of(segment.elapsed_s, segment) for segment in billed) if billed and self.prices.per_gpu else None

    def cost_of(self, seconds: float, segment: Segment) -> float:
        """Returns the list price of `seconds` of a segment; what has no price costs nothing."""
        if segment.gpus:
            return seconds / 3600 * segment.gpus * (self.prices.per_gpu or 0.0)
        return seconds / 3600 * segment.nodes * (self.prices.per_node or 0.0)

    def cost_by_phase(self) -> dict[str, float]:
        """Returns the list price by phase; it sums to `cost`."""
        found: dict[str, float] = {}
        for segment in self.segments:
            for phase, seconds in segment.seconds().items():
                if segment.job_id is not None:
                    found[phase] = found.get(phase, 0.0) + self.cost_of(seconds, segment)
        return found

    def net(self, cost: float | None) -> float | None:
        """Returns what is left of a list price after the subsidy."""
        return None if cost is None or self.prices.subsidy is None else cost * (1 - self.prices.subsidy)

    def width(self, segment: Segment) -> int:
        """Returns what one hour of a segment counts."""
        return segment.gpus if self._has_gpus else segment.nodes

    @property
    def _has_gpus(self) -> bool:
        return any(segment.gpus for segment in self.segments)

    def in_month(self, month: str) -> Goodput | None:
        """Returns the part of it that fell into a month, `2026-11` in local time; None when none did."""
        began, ended = month_bounds(month)
        parts = tuple(part for segment in self.segments if (part := segment.clipped(began, ended)) is not None)
        # Waiting is told as a whole only: the records say how long, and it costs nothing.
        return Goodput(self.run, self.project, parts, 0.0, self.prices, self.note, self.as_of) if parts else None

    def to_json(self) -> dict[str, Any]:
        """Returns what goodput.json holds."""
        costs = self.cost_by_phase()
        return {
            "run": self.run,
            "project": self.project,
            "as_of": round(self.as_of, 3),
            "unit": self.unit,
            "hours": {name: round(value, 6) for name, value in self.hours.items()},
            "total": round(self.total, 6),
            "trained": self.trained,
            "queue_s": round(self.queue_s, 3),
            "cost": self.cost,
            "net": self.net(self.cost),
            "cost_by_phase": costs if self.cost is not None else {},
            "prices": asdict(self.prices),
            "not_compared": self.note,
            "segments": [segment_json(segment) for segment in self.segments],
        }


def segment_json(segment: Segment) -> dict[str, Any]:
    """Returns one start as goodput.json has it."""
    values = asdict(segment)
    del values["intervals"]
    seconds = {name: round(value, 3) for name, value in segment.seconds().items()}
    return {**values, "elapsed_s": round(segment.elapsed_s, 3), "seconds": seconds}


def goodput(run: Path, *, now: float, queue: Queue | None = None, accounts: Accounts | None = None) -> Goodput:
    """Returns the account of a run.

    Args:
        run: its folder.
        now: seconds since 1970.
        queue: what squeue knows of its jobs; None: not asked.
        accounts: what sacct knows of them; None: not asked.
    """
    queue, accounts = queue or Queue(), accounts or Accounts(note="not asked for")
    segments = tuple(segments_of(run, now=now, queue=queue.jobs, accounted=accounts.rows))
    config = config_of(run)
    project = config.run.project if config is not None else None
    note = accounts.note or ("" if any(segment.slurm_s is not None for segment in segments) else "sacct has no finished start of it")
    return Goodput(run.name, project, segments, queue_seconds(run, queue, now), prices_of(config), note, now)


def write_goodput(run: Path, account: Goodput) -> None:
    """Writes the run's goodput.json, replacing an older one."""
    atomic.write_json(run / NAME, account.to_json())


def queue_seconds(run: Path, queue: Queue, now: float) -> float:
    """Returns how long the jobs of a run waited: before each first start, between two starts, and now.

    A job that waits for another (`after`) waits in the queue from the end of that one.
    """
    jobs, starts = read_jobs(run), read_starts(run)
    total = 0.0
    for job in jobs:
        since: float | None = job.submitted
        before = [start.ended for start in starts if start.job_id == job.after and start.ended is not None]
        since = max([job.submitted, *before])
        for start in (start for start in starts if start.job_id == job.job_id):
            total += max(0.0, start.began - since) if since is not None else 0.0
            since = start.ended
        queued = queue.jobs.get(job.job_id)
        if queued is not None and queued.waits and since is not None:
            total += max(0.0, now - since)
    return total


def differences(account: Goodput) -> list[tuple[Segment, float]]:
    """Returns (segment, seconds that it is longer than Slurm's accounting has it) for each that can be compared."""
    return [(part, part.elapsed_s - part.slurm_s) for part in account.segments if part.slurm_s is not None]


def agrees(segment: Segment) -> bool:
    """True when a segment's length is that of the accounting, within 1 % or 2 s."""
    assert segment.slurm_s is not None
    return abs(segment.elapsed_s - segment.slurm_s) <= max(TOLERANCE_SHARE * segment.slurm_s, TOLERANCE_S)


def config_of(run: Path) -> RunConfig | None:
    """Returns the configuration of a run, as launched or as its newest attempt ran; None when neither can be read."""
    frozen = [attempt.config_path for attempt in reversed(RunFolder(run).attempts())]
    for path in (run / "launch.yaml", *frozen):
        try:
            return thaw(path.read_text(encoding="utf-8"))
        except (OSError, UserError):
            continue
    return None


def prices_of(config: RunConfig | None) -> Prices:
    """Returns the prices of the partition that a run trains on, from the site file that is there now."""
    cluster = config.cluster if config is not None else ClusterSection()
    path = site_path(cluster.site)
    if path is None:
        return Prices(note="no site file, so no prices (cluster.site or $AISC_SITE)")
    try:
        site = parse_site(path)
    except (UserError, OSError) as error:
        return Prices(note=f"no prices: {str(error).splitlines()[0]}")
    partition = site.partition(cluster.partition)
    per_gpu = partition.price_per_gpu_hour if partition is not None else None
    note = "" if per_gpu is not None else f"{path} has no price_per_gpu_hour of that partition"
    per_node = _cpu_price(site, cluster)
    subsidy = site.subsidy(config.run.project if config is not None else None)
    return Prices(per_gpu, per_node, subsidy, site.price.currency, site.price.source or site.source, note)


def _cpu_price(site: Site, cluster: ClusterSection) -> float | None:
    partition = site.partition(cluster.cpu_partition or site.cpu_partition or cluster.partition)
    return partition.price_per_node_hour if partition is not None else None


@dataclass(frozen=True, slots=True)
class Total:
    """Several runs together. `cost` and `net` are of the runs whose price is known; `unpriced` is the number of others."""

    project: str
    month: str
    runs: int
    hours: dict[str, float]
    total: float
    cost: float
    net: float
    unpriced: int
    currency: str


def totals(accounts: Sequence[Goodput], *, project: str | None = None, month: str | None = None) -> list[Total]:
    """Returns one line for each project and month with GPU-hours, newest month first; only those asked for."""
    groups: dict[tuple[str, str], list[Goodput]] = {}
    for account in accounts:
        name = account.project or "-"
        if project is not None and name != project:
            continue
        for each in [month] if month is not None else months_of(account):
            part = account.in_month(each)
            if part is not None:
                groups.setdefault((each, name), []).append(part)
    ordered = sorted(groups.items(), key=lambda item: (-int(item[0][0].replace("-", "")), item[0][1]))
    return [_total(name, each, parts) for (each, name), parts in ordered]


def _total(project: str, month: str, parts: list[Goodput]) -> Total:
    with_gpus = [part for part in parts if part.unit == "GPU-hours"]
    costs = [part.cost for part in with_gpus]
    nets = [part.net(part.cost) for part in with_gpus]
    return Total(
        project=project,
        month=month,
        runs=len(parts),
        hours={phase: sum(part.hours.get(phase, 0.0) for part in with_gpus) for phase in (*PHASES, UNKNOWN)},
        total=sum(part.total for part in with_gpus),
        cost=sum(cost for cost in costs if cost is not None),
        net=sum(net for net in nets if net is not None),
        unpriced=sum(cost is None for cost in costs),
        currency=parts[0].prices.currency,
    )


def months_of(account: Goodput) -> list[str]:
    """Returns the months that a run has hours in, as `2026-11` in local time."""
    found = []
    for segment in account.segments:
        month = month_at(segment.began)
        found.append(month)
        while month != month_at(segment.ended):
            month = month_at(month_bounds(month)[1])
            found.append(month)
    return list(dict.fromkeys(found))


def month_at(seconds: float) -> str:
    """Returns the month of a time, `2026-11`, in local time."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m")


def month_bounds(month: str) -> tuple[float, float]:
    """Returns when a month begins and when the next one does.

    Raises:
        UserError: this is no month.
    """
    try:
        first = datetime.datetime.strptime(month, "%Y-%m")
    except ValueError as error:
        raise UserError(f"--month {month}: expected a month such as 2026-11") from error
    following = (first.replace(day=28) + datetime.timedelta(days=4)).replace(day=1)
    return first.timestamp(), following.timestamp()
