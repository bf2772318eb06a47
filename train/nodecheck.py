"""The pre-flight of a job: every rank looks at its node and at the links, rank 0 names the node that is to be avoided.

    srun aisc job check RUN      # in the script of aisc launch, before the training, one task per rank

Result in RUN/jobs/ID.RESTART.check.json, a table on rank 0's output, exit code 0 sound, 76 a node is to be avoided (the job
goes back into the queue without it), 2 what the next start would meet again.

It ends within a bounded time whatever the nodes do: the ranks meet in rank 0's store, which is where they leave figures
too; rank 0 waits for them until a deadline, and who has left nothing by then is named. Every rank measures in a thread,
so that none of them can be held by a collective that never returns. What chance can explain is measured again, twice at
most, and the best counts.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from configs import atomic
from configs.compose import thaw
from configs.errors import UserError
from configs.runfolder import read_json
from configs.schema import RunConfig
from configs.site import Site, read_site
from train import node_links, node_probes
from train.distributed import rank_from_environment
from train.node_figures import Report, job_figures, known_before
from train.node_links import Team
from train.node_table import table
from train.node_verdict import EXIT_AVOID, Known, Verdict, judge, noisy

# After the last rank has come: for measuring, and for rank 0 to say the verdict.
MEASURE_S, LEAVE_S = 20.0, 6.0
LINK_TIMEOUT_S = 10.0
MOST_LAPS = 3
EVERYTHING = ("matrix", "links", "all-reduce", "disks", "clock", "once")


@dataclass(frozen=True, slots=True)
class Place:
    """This rank in its job.

    Attributes:
        node: its name as Slurm knows it.
        hosts: name of the node of each rank; empty: Slurm does not say.
    """

    run: Path
    job: str
    rank: int
    local_rank: int
    world: int
    node: str
    hosts: tuple[str, ...]

    @property
    def result(self) -> Path:
        return self.run / "jobs" / f"{self.job}.check.json"

    def host(self, rank: int) -> str:
        """Returns the name of the node of `rank`."""
        if rank < len(self.hosts):
            return self.hosts[rank]
        return os.environ["MASTER_ADDR"] if rank == 0 else f"the node of rank {rank}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was planned for this job; `problem`: why this rank cannot tell."""

    config: RunConfig | None
    site: Site
    problem: str = ""

    @property
    def backend(self) -> str:
        return "gloo" if self.config is None or self.config.engine.backend != "nccl" else "nccl"

    def known(self) -> dict[str, Any]:
        """Returns the planned card and how many of them a node has."""
        if self.config is None or self.backend == "gloo":
            return {}
        partition = self.site.partition(self.config.cluster.partition)
        count = self.config.cluster.gpus_per_node
        if not isinstance(count, int):
            count = partition.gpus_per_node if partition else 0
        return {"gpu": partition.gpu if partition else None, "gpus_per_node": count}


def main(run: Path) -> int:
    """Checks the nodes of this job; returns the exit code, the same on every rank."""
    began = time.monotonic()
    place, plan = place_of(run), plan_of(run)
    arrival_s = plan.site.bounds.arrival_s
    _leave_at(place, began + arrival_s + MEASURE_S + LEAVE_S)
    if place.world == 1:
        report = _measure(place, plan, None, EVERYTHING)
        return _publish(place, plan, [[report]], {}, began)
    try:
        store = _open_store(place, arrival_s, is_host=place.rank == 0)
        store.set(f"here/{place.rank}", place.node)
        code = _lead(place, plan, store, began) if place.rank == 0 else _serve(place, plan, store, began)
    except (RuntimeError, ValueError) as error:  # torch's DistError: no store, or it has gone
        code = _without_rank_0(place, str(error))
    _leave(code)
    return code


def place_of(run: Path) -> Place:
    """Returns this rank's place from Slurm's variables.

    Raises:
        UserError: this is no job of Slurm.
    """
    environment = os.environ
    if "SLURM_JOB_ID" not in environment:
        raise UserError("aisc job check: for the scripts that aisc launch writes; $SLURM_JOB_ID is not set here")
    rank, local_rank, world = rank_from_environment()
    job = f"{environment['SLURM_JOB_ID']}.{environment.get('SLURM_RESTART_COUNT', '0')}"
    try:
        nodes = (read_json(run / "jobs" / f"{job}.json") or {}).get("nodes", [])
    except OSError:  # its problem will be told with the configuration's
        nodes = []
    counts = tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE", "")))
    hosts = tuple(node for node, count in zip(nodes, counts, strict=False) for _ in range(count))
    node = environment.get("SLURMD_NODENAME") or os.uname().nodename
    return Place(run, job, rank, local_rank, world, node, hosts)


def tasks_per_node(text: str) -> list[int]:
    """Returns the numbers of `2(x3),1`."""
    return [int(count) for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text) for _ in range(int(times or 1))]


def plan_of(run: Path) -> Plan:
    """Returns the frozen configuration and the site file; without them what there is, and why."""
    try:
        config = thaw((run / "launch.yaml").read_text(encoding="utf-8"))
    except OSError as error:
        return Plan(None, Site(), f"the run folder {run} cannot be read: {error.strerror}")
    except UserError as error:
        return Plan(None, Site(), f"{run / 'launch.yaml'}: {error}")
    try:
        return Plan(config, read_site(config.cluster))
    except (OSError, UserError) as error:
        return Plan(config, Site(), f"the site file cannot be read: {error}")


def _open_store(place: Place, arrival_s: float, *, is_host: bool) -> Store:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    timeout = datetime.timedelta(seconds=arrival_s)
    if not is_host:
        _wait_for_host(address, port, time.monotonic() + arrival_s)
    return TCPStore(address, port, place.world, is_host, timeout, wait_for_workers=False)


def _wait_for_host(address: str, port: int, deadline: float) -> None:
    """Waits until somebody listens: torch waits longer than it is told to, and fills the screen when it gives up."""
    while True:
        try:
            socket.create_connection((address, port), timeout=2.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{address}:{port}: {error}") from error
            time.sleep(0.2)


def _lead(place: Place, plan: Plan, store: Store, began: float) -> int:
    """Rank 0: waits for all, measures as all do, judges, tells."""
    missing = _wait_for(store, [f"here/{rank}" for rank in range(place.world)], began + plan.site.bounds.arrival_s)
    nodes = {rank: store.get(f"here/{rank}").decode() if rank not in missing else place.host(rank) for rank in range(place.world)}
    if missing:
        words = f"did not come within {plan.site.bounds.arrival_s:.0f} s"
        reports = [[{"rank": rank, "node": nodes[rank]} for rank in range(place.world)]]
        code = _publish(place, plan, reports, {rank: f"{words} (rank {rank})" for rank in missing}, began)
        store.set("go", json.dumps({"code": code}))
        _wait_for(store, [f"told/{rank}" for rank in range(1, place.world) if rank not in missing], time.monotonic() + 2)
        return code
    deadline = time.monotonic() + MEASURE_S
    groups: dict[str, list[int]] = {}
    for rank in range(place.world):
        groups.setdefault(nodes[rank], []).append(rank)
    store.set("go", json.dumps({"ranks": list(groups.values())}))
    worker = threading.Thread(target=_work, args=(place, plan, list(groups.values())), daemon=True)
    worker.start()
    laps: list[list[Report]] = []
    kinds: Sequence[str] = EVERYTHING
    while True:
        lap = len(laps)
        missing = _wait_for(store, [f"report/{lap}/{rank}" for rank in range(place.world)], deadline)
        laps.append(
            [
                {"rank": rank, "node": nodes[rank]} if rank in missing else json.loads(store.get(f"report/{lap}/{rank}"))
                for rank in range(place.world)
            ]
        )
        kinds = [] if missing or len(laps) == MOST_LAPS else _doubtful(plan, laps)
        if not kinds or deadline - time.monotonic() < MEASURE_S / 3:
            break
        store.set(f"next/{lap}", json.dumps(kinds))
    words = f"did not report within {MEASURE_S:.0f} s of measuring"
    code = _publish(place, plan, laps, {rank: f"{words} (rank {rank})" for rank in missing}, began)
    store.set(f"next/{len(laps) - 1}", json.dumps({"code": code}))
    _wait_for(store, [f"told/{rank}" for rank in range(1, place.world) if rank not in missing], time.monotonic() + 3)
    return code


def _doubtful(plan: Plan, laps: list[list[Report]]) -> list[str]:
    """Returns what is to be measured again."""
    figures = job_figures(laps, {})
    verdict = judge(figures.nodes, figures.all_reduce, plan.site.bounds, Known(**plan.known()))
    kinds = {"matrix": "matrix", "send": "links", "receive": "links", "latency": "disks", "memory": "once", "skew": "clock"}
    return sorted({kinds.get(what, what) for what in noisy(verdict.findings)})


def _serve(place: Place, plan: Plan, store: Store, began: float) -> int:
    """Any other rank: measures what rank 0 asks for until it tells the exit code."""
    store.wait(["go"], datetime.timedelta(seconds=plan.site.bounds.arrival_s + LEAVE_S))
    go = json.loads(store.get("go"))
    if "ranks" not in go:
        store.set(f"told/{place.rank}", "1")
        return int(go["code"])
    worker = threading.Thread(target=_work, args=(place, plan, go["ranks"]), daemon=True)
    worker.start()
    for lap in range(MOST_LAPS):
        store.wait([f"next/{lap}"], datetime.timedelta(seconds=MEASURE_S + LEAVE_S / 2))
        said = json.loads(store.get(f"next/{lap}"))
        if isinstance(said, dict):
            store.set(f"told/{place.rank}", "1")
            return int(said["code"])
    raise RuntimeError("rank 0 asked for more than it may")


def _work(place: Place, plan: Plan, ranks: list[list[int]]) -> None:
    """Measures, lap by lap; the thread of every rank. It dies with the process when it is held."""
    store = _open_store(place, plan.site.bounds.arrival_s, is_host=False)  # a connection serves one thread at a time
    kinds: Sequence[str] = EVERYTHING
    for lap in range(MOST_LAPS):
        deadline = time.monotonic() + MEASURE_S - 2
        device = torch.device("cuda", place.local_rank) if plan.backend == "nccl" else torch.device("cpu")
        team = Team(store, place.rank, ranks, device, plan.backend, deadline, lap)
        try:
            report = _measure(place, plan, team, kinds)
        except Exception as error:  # whatever it is, it is this node's
            report = {"rank": place.rank, "node": place.node, "problem": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        store.set(f"report/{lap}/{place.rank}", json.dumps(report))
        store.wait([f"next/{lap}"], datetime.timedelta(seconds=MEASURE_S))
        said = json.loads(store.get(f"next/{lap}"))
        if isinstance(said, dict):
            return
        kinds = said


def _measure(place: Place, plan: Plan, team: Team | None, kinds: Sequence[str]) -> Report:
    """Returns this rank's figures of the kinds asked for, as plain values."""
    device = torch.device("cuda", place.local_rank) if plan.backend == "nccl" else torch.device("cpu")
    report: Report = {"rank": place.rank, "node": place.node}
    if plan.problem:
        report["problem"] = plan.problem
    if "once" in kinds:
        report["devices"] = node_probes.devices(device.type)
    if device.type == "cuda":
        if place.local_rank >= torch.cuda.device_count():
            return report
        torch.cuda.set_device(device)
    if "once" in kinds:
        report["memory"] = node_probes.memory(device)
        report["card"] = node_probes.card(device)
        if place.local_rank == 0:
            report["versions"] = node_probes.versions()
            report["signature"] = "" if plan.problem else node_probes.run_signature(place.run)
    if "disks" in kinds and place.local_rank == 0:
        folders = node_probes.folders(place.run, plan.site.storage.node_local, os.environ)
        report["disks"] = {name: node_probes.disk(folder) for name, folder in folders.items()}
    if "matrix" in kinds:
        report["matrix_tflops"], report["matrix_median"] = node_probes.matrix_tflops(device)
    if team is not None:
        _measure_together(team, kinds, report)
    return report


def _measure_together(team: Team, kinds: Sequence[str], report: Report) -> None:
    if "clock" in kinds:
        report["clock"] = _clock(team)
    if not {"links", "all-reduce"} & set(kinds):
        return
    if not dist.is_initialized():
        dist.init_process_group(
            team.backend,
            store=PrefixStore("group", team.store),
            rank=team.rank,
            world_size=team.world,
            timeout=datetime.timedelta(seconds=LINK_TIMEOUT_S),
        )
    if "links" in kinds:
        found = node_links.measure_links(team)
        report["links"] = [dataclasses.asdict(link) for link in found]
        if any(link.error for link in found):
            team.store.set("broken", "1")
    team.meet("linked", team.world)
    if "all-reduce" in kinds and not team.store.check(["broken"]):
        report["all_reduce_gb_per_s"] = node_links.measure_all_reduce(team)


def _clock(team: Team) -> list[float]:
    """Returns this rank's clock, in seconds since 1970, at moments that all ranks share.

    The wait for a key ends everywhere when it is set; what a busy rank takes to wake up comes on top, so the least counts.
    """
    times = []
    for number in range(3):
        team.meet(f"clock/{number}", team.world)
        times.append(time.time())
    return times


def _wait_for(store: Store, keys: list[str], deadline: float) -> list[int]:
    """Returns which of `keys` (their last parts, ranks) have not been set by `deadline`."""
    try:
        store.wait(keys, datetime.timedelta(seconds=max(0.05, deadline - time.monotonic())))
    except (RuntimeError, ValueError):
        return [int(key.rpartition("/")[2]) for key in keys if not store.check([key])]
    return []


def _publish(place: Place, plan: Plan, laps: list[list[Report]], missing: dict[int, str], began: float) -> int:
    """Judges, writes the result and shows it; returns the exit code."""
    figures = job_figures(laps, missing)
    suspects, versions = known_before(place.run, place.job)
    known = Known(**plan.known(), missing=figures.missing, suspects=suspects, versions=versions)
    verdict = judge(figures.nodes, figures.all_reduce, plan.site.bounds, known)
    seconds = time.monotonic() - began
    values = {
        "code": verdict.code,
        "cause": verdict.cause,
        "avoid": verdict.avoid,
        "again": verdict.again,
        "suspects": verdict.suspects,
        "findings": [finding.sentence for finding in verdict.findings],
        "time": time.time(),
        "seconds": round(seconds, 2),
        "laps": laps,
    }
    _write(place, values)
    sys.stdout.write(table(figures, verdict, seconds=seconds, ranks=place.world))
    sys.stdout.flush()
    return verdict.code


def _write(place: Place, values: dict[str, Any]) -> None:
    try:
        place.result.parent.mkdir(mode=0o700, exist_ok=True)
        atomic.write_json(place.result, values)
    except OSError as error:
        sys.stderr.write(f"{place.result}: cannot be written: {error.strerror}\n")


def _without_rank_0(place: Place, error: str) -> int:
    """Rank 0 does not answer: unless it has left a verdict, its node is the one to avoid; any rank may write so."""
    said = read_json(place.result)
    if said is None and place.local_rank == 0:
        sentence = f"{place.host(0)} did not answer: {place.node} waited for rank 0 in vain"
        verdict = Verdict(EXIT_AVOID, sentence, [place.host(0)])
        empty: dict[str, Any] = {"again": [], "suspects": [], "findings": [], "laps": [], "time": time.time()}
        _write(place, {"code": verdict.code, "cause": sentence, "avoid": verdict.avoid, **empty})
        sys.stderr.write(f"{sentence}\n")
    return EXIT_AVOID if said is None else int(said["code"])


def _leave_at(place: Place, moment: float) -> None:
    """From `moment` on this process is ended by a thread of its own, whatever holds the others."""

    def end() -> None:
        time.sleep(max(0.0, moment - time.monotonic()))
        _leave(_without_rank_0(place, "no verdict"))

    threading.Thread(target=end, daemon=True).start()


def _leave(code: int) -> None:
    """Ends this process at once: the destructors of a process group may wait for a rank that will not come."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
