"""How fast nodes talk to each other: pair by pair, then all together, over the very backend that the training will use.

Messages grow from 16 KiB as long as the next size would take less than a second, so that a link at a crawl is measured
in seconds too. In a pair the rank of the first node drives: it says what comes next, the other follows. Pairs meet in the
store first; there waiting costs nothing, while a collective that gives up takes its connection with it.
"""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

# Bytes per message; the largest takes some ms on a sound link.
SIZES = {"gloo": (1 << 14, 1 << 18, 1 << 22), "nccl": (1 << 18, 1 << 24, 1 << 28)}
NEXT_SIZE_S = 1.0
# Repeats at the largest size: some, and for some time, as others who share cores or switches come and go.
REPEATS, REPEAT_S, MOST_REPEATS = 4, 0.12, 64
# Each node meets this many others, all of them in jobs of up to four nodes.
MOST_ROUNDS = 3
_SEND, _RECEIVE, _END = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Team:
    """The ranks of a job.

    Attributes:
        store: where they meet; `deadline`: on time.monotonic's clock.
        ranks: of each node, in the order of nodes.
        lap: number of this measurement, 0 the first time.
    """

    store: Store
    rank: int
    ranks: Sequence[Sequence[int]]
    device: torch.device
    backend: str
    deadline: float
    lap: int

    @property
    def world(self) -> int:
        return sum(len(ranks) for ranks in self.ranks)

    def left(self) -> datetime.timedelta:
        """Time until the deadline, a tenth of a second at least."""
        return datetime.timedelta(seconds=max(0.1, self.deadline - time.monotonic()))

    def meet(self, name: str, count: int) -> None:
        """Waits in the store until `count` ranks have come to `name`."""
        key = f"{self.lap}/{name}"
        if self.store.add(f"{key}/count", 1) == count:
            self.store.set(f"{key}/all", "1")
        self.store.wait([f"{key}/all"], self.left())


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two nodes, by their indices: the best rate and the median; `error`: it could not be measured."""

    sender: int
    receiver: int
    gb_per_s: float
    median: float = 0.0
    error: str = ""


def rounds(nodes: int) -> list[list[tuple[int, int]]]:
    """Returns who meets whom, round by round; in a round each node is in one pair at most, all pairs are different."""
    seats = list(range(nodes + nodes % 2))  # with an odd number one sits out
    found = []
    for _ in range(min(MOST_ROUNDS, len(seats) - 1)):
        half = len(seats) // 2
        met = zip(seats[:half], reversed(seats[half:]), strict=True)
        found.append([(min(pair), max(pair)) for pair in met if max(pair) < nodes])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return found


def measure_links(team: Team) -> list[Link]:
    """Returns what this rank has measured as a driver; a partner that does not answer is an error of that link."""
    found: list[Link] = []
    own = next(index for index, ranks in enumerate(team.ranks) if team.rank in ranks)
    place = list(team.ranks[own]).index(team.rank)
    if team.backend == "gloo" and place > 0:  # a node has one network card for all; with NCCL each GPU has its own
        return found
    for number, pairs in enumerate(rounds(len(team.ranks))):
        pair = next((pair for pair in pairs if own in pair), None)
        other = None if pair is None else pair[1 - pair.index(own)]
        if pair is None or other is None or place >= len(team.ranks[other]):
            continue
        partner, drives = team.ranks[other][place], own == pair[0]
        try:
            team.meet(f"pair/{number}/{pair[0]}-{pair[1]}/{place}", 2)
            if drives:
                found.append(Link(own, other, *_drive(team, partner, _SEND)))
                found.append(Link(other, own, *_drive(team, partner, _RECEIVE)))
                _say(team, partner, _END, 0)
            else:
                _follow(team, partner)
        except RuntimeError as error:
            words = str(error).splitlines()[0][:200]
            # Both sides tell: the driver may be the one that is gone.
            found += [Link(own, other, 0.0, error=words), Link(other, own, 0.0, error=words)]
    return found


def measure_all_reduce(team: Team) -> float:
    """Returns GB/s of each rank's links in an all-reduce over all ranks: 2 (n - 1) / n x bytes / s, the best of some."""
    best, share = 0.0, 2 * (team.world - 1) / team.world
    sizes = SIZES[team.backend]
    for index, size in enumerate(sizes):
        data = torch.zeros(size // 4, device=team.device)
        shortest = float("inf")
        for _ in range(REPEATS):
            begin = time.perf_counter()
            dist.all_reduce(data)
            _wait(team)
            spent = torch.tensor([time.perf_counter() - begin], dtype=torch.float64, device=team.device)
            dist.all_reduce(spent, op=dist.ReduceOp.MAX)  # so that all ranks go on or stop together
            shortest = min(shortest, float(spent.item()))
            if shortest > NEXT_SIZE_S:
                break
        best = max(best, share * size / shortest / 1e9)
        if index < len(sizes) - 1 and shortest * sizes[index + 1] / size > NEXT_SIZE_S:
            break
    return best


def _drive(team: Team, partner: int, what: int) -> tuple[float, float]:
    """Returns the best rate in GB/s of sending to `partner`, or of receiving from it, and the median of the largest size."""
    best, sizes = 0.0, SIZES[team.backend]
    rates: list[float] = []
    for index, size in enumerate(sizes):
        payload = torch.zeros(size, dtype=torch.uint8, device=team.device)
        is_last, rates, end = index == len(sizes) - 1, [], time.perf_counter() + REPEAT_S
        while len(rates) < (MOST_REPEATS if is_last else REPEATS) and (len(rates) < REPEATS or time.perf_counter() < end):
            begin = time.perf_counter()
            _say(team, partner, what, size)
            if what == _SEND:
                dist.send(payload, partner)
                _hear(team, partner)
            else:
                dist.recv(payload, partner)
                _wait(team)
            rates.append(size / (time.perf_counter() - begin) / 1e9)
            best = max(best, rates[-1])
            if size / rates[-1] / 1e9 > NEXT_SIZE_S:
                break
        if not is_last and sizes[index + 1] / max(rates) / 1e9 > NEXT_SIZE_S:
            break
    return best, statistics.median(rates)


def _follow(team: Team, partner: int) -> None:
    while True:
        what, size = _hear(team, partner)
        if what == _END:
            return
        payload = torch.zeros(size, dtype=torch.uint8, device=team.device)
        if what == _SEND:
            dist.recv(payload, partner)
            _wait(team)
            _say(team, partner, _END, 0)
        else:
            dist.send(payload, partner)


def _say(team: Team, partner: int, what: int, size: int) -> None:
    dist.send(torch.tensor([what, size], device=team.device), partner)


def _hear(team: Team, partner: int) -> tuple[int, int]:
    words = torch.zeros(2, dtype=torch.int64, device=team.device)
    dist.recv(words, partner)
    what, size = words.tolist()
    return what, size


def _wait(team: Team) -> None:
    if team.device.type == "cuda":
        torch.cuda.synchronize(team.device)
