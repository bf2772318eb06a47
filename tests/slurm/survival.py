"""Small runs sent through a queue, what befalls them there, and how they must end.

A bench makes chats, a tokenizer and a store once; every run trains the same random model on them. The undisturbed run
and the one that was pushed out, killed or cut off must agree: ledger head always, every loss bitwise on as many ranks.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from configs.jsonlines import read_lines
from configs.runfolder import Attempt, RunFolder, read_json, read_ledger, read_metrics, request_stop, saved_step
from launch.records import JobStart, read_jobs, read_starts
from tests.kills.lab import make_chats, make_tokenizer
from tests.slurm.cluster import Cluster
from tests.slurm.processes import wait_until

STEPS, SAVE_EVERY, EVALUATE_EVERY = 24, 6, 8
PATIENCE_S = 600.0
BASE = (
    "model=tiny_llama",
    "adapter=lora",
    "adapter.rank=4",
    "data.sequence_length=64",
    "data.workers=0",
    "training.micro_batch_size=1",
    "training.global_batch_size=6",
    "training.precision=fp32",
    "engine.backend=gloo",
    "evaluation.replies=0",
    "optimizer.lr=1e-3",
    "cluster.stages=[train]",
)
# Dropout is on where the ranks are as many as in the run that it is compared with: then every loss must be the same bit
# by bit, and the random state counts too.
DROPOUT = "adapter.dropout=0.1"
PACED = (f'cluster.setup=["AISC=({sys.executable} -m tests.slurm.paced)"]', "cluster.check_nodes=false")


class Run:
    """One run in the queue: what its folder and Slurm say of it, and what can be done to it."""

    def __init__(self, cluster: Cluster, parent: Path) -> None:
        self.cluster = cluster
        self.parent = parent

    @property
    def folder(self) -> RunFolder:
        """The run's folder; the launch has made it."""
        (path,) = self.parent.glob("*/launch.yaml")
        return RunFolder(path.parent)

    @property
    def job_id(self) -> int:
        """The newest job of the training."""
        return [job.job_id for job in read_jobs(self.folder.path) if job.stage == "train"][-1]

    @property
    def starts(self) -> list[JobStart]:
        """What the jobs wrote of themselves."""
        return read_starts(self.folder.path)

    @property
    def saved_step(self) -> int:
        """The newest step that a checkpoint holds."""
        return saved_step(self.folder.path)

    def is_started(self, restart: int) -> bool:
        """True when start number `restart` of the newest job, or a later one, has begun."""
        submitted = read_jobs(self.folder.path)[-1].submitted
        return any(start.restart >= restart and start.began >= submitted for start in self.starts)

    def wait_for(self, moment: str, *, restart: int = 0, past_step: int = 0) -> Attempt:
        """Waits for a moment: step, save, evaluation; returns the attempt that is there.

        Args:
            moment: as above.
            restart: in this start of the newest job, or a later one.
            past_step: beyond this update.
        """

        found: list[Attempt] = []

        def happened() -> bool:
            attempt = self._newest()
            start = attempt.read_start() if attempt is not None else None
            if attempt is None or start is None or start["time"] < read_jobs(self.folder.path)[-1].submitted:
                return False
            found.append(attempt)
            return int(start["job_restart"]) >= restart and is_at(attempt, moment, past_step)

        wait_until(happened, PATIENCE_S, lambda: f"no {moment} in start {restart}:\n{self.said()}", every_s=0.02)
        return found[-1]

    def finish(self) -> Run:
        """Waits for the end of the newest job, which must be a good one; returns this run."""
        self.cluster.wait_for_job(self.job_id, timeout_s=PATIENCE_S)
        assert self.starts[-1].verdict == "finished", (self.starts[-1], self.said())
        return self

    def stop(self) -> None:
        """Asks it to save and stop, as a user would, and waits until its job is gone."""
        request_stop(self.folder.path)
        self.cluster.wait_for_job(self.job_id, "FAILED", timeout_s=PATIENCE_S)
        assert self.starts[-1].verdict == "stopped", self.starts[-1]

    def requeue(self) -> None:
        """As an administrator would: back into the queue."""
        self.cluster.call("scontrol", "requeue", str(self.job_id))

    def preempt(self) -> None:
        """Another job, more important, takes the run's nodes until it is gone from them, and ends."""
        job = self.cluster.job(self.job_id)
        nodes = [f"--nodelist={','.join(job.nodes)}", f"--nodes={len(job.nodes)}"]
        words = ["sbatch", "--parsable", "--qos=high", "--exclusive", "--output=/dev/null", *nodes, "--wrap=true"]
        other = int(self.cluster.call(*words).split(";")[0])
        self.cluster.wait_for_job(other)

    def met(self) -> dict[str, int]:
        """Returns in which phases signals have met rank 0 so far, as paced ranks say it."""
        found: dict[str, int] = {}
        for text in (path.read_text(errors="replace") for path in (self.folder.path / "jobs").glob("*.out")):
            for phase in re.findall(r"rank 0: SIG\w+ in (\w+)", text):
                found[phase] = found.get(phase, 0) + 1
        return found

    def said(self) -> str:
        """The end of what its newest job printed, and what its newest attempt wrote."""
        newest = self._newest()
        events = read_lines(newest.events_path)[-5:] if newest is not None and newest.events_path.exists() else []
        return f"{self.cluster.job(self.job_id).output}\n{events}"

    def _newest(self) -> Attempt | None:
        known = self.folder.attempts()
        return known[-1] if known else None


def is_at(attempt: Attempt, moment: str, past_step: int) -> bool:
    """True when the attempt's files say that it is at `moment` beyond update `past_step`."""
    if moment == "step":
        return attempt.ledger_path.exists() and any(line["step"] > past_step for line in read_lines(attempt.ledger_path))
    kind = {"save": "saving", "evaluation": "evaluating"}[moment]
    events = read_lines(attempt.events_path) if attempt.events_path.exists() else []
    return bool(events and events[-1]["event"] == kind and events[-1]["step"] > past_step)


def facts_of(run: RunFolder, steps: int = STEPS) -> dict[str, Any]:
    """Returns what must not depend on what befell a finished run: the heads of its ledger, its losses."""
    ledger = read_ledger(run.path)
    assert [line["step"] for line in ledger] == list(range(1, steps + 1))
    end = read_json(run.attempts()[-1].exit_path)
    assert end is not None and end["state"] == "done", end
    losses = {
        f"{key} {line['step']}": line[key]
        for line in read_metrics(run.path)
        for key in ("loss", "grad_norm", "eval_loss")
        if key in line
    }
    return {"heads": [line["head"] for line in ledger], "losses": losses}


def worst_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Returns the largest relative difference of two runs' losses, measured and held out."""
    assert one["losses"].keys() == other["losses"].keys()
    pairs = [(value, other["losses"][name]) for name, value in one["losses"].items() if "loss" in name]
    return float(max(abs(a / b - 1) for a, b in pairs))


def contents(folder: Path) -> dict[str, str]:
    """Returns the hash of every file below `folder`, by path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def steps_redone(run: RunFolder) -> list[int]:
    """Returns, for each continuation, how many updates that had been made were made again."""
    redone, made = [], 0
    for attempt in run.attempts():
        parent = attempt.parent()
        if parent is not None:
            redone.append(made - parent.step)
        lines = read_lines(attempt.ledger_path) if attempt.ledger_path.exists() else []
        made = max([made if parent is None else parent.step, *(line["step"] for line in lines)])
    return redone


class Bench:
    """Makes data and tokenizer in `folder`; launches runs from there."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "tokenizer").exists():
            make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 160))

    def options(self, name: str, *options: str) -> list[str]:
        """Returns the arguments that make run `name`; later ones win."""
        values = [*BASE, f"run.dir={self.folder / 'runs' / name}"]
        places = {"model.tokenizer": "tokenizer", "data": "chats.jsonl", "data.store": "stores"}
        values += [f"{key}={self.folder / place}" for key, place in places.items()]
        duration = [f"training.duration={STEPS} steps", f"checkpoint.every={SAVE_EVERY} steps"]
        given = [*values, *duration, f"evaluation.every={EVALUATE_EVERY} steps", *options]
        return list({word.split("=", 1)[0]: word for word in given}.values())

    def made(self, name: str) -> Run | None:
        """Returns run `name` when it was made before and is done."""
        run = Run(self.cluster, self.folder / "runs" / name)
        return run if list(run.parent.glob("*/result.json")) else None

    def launch(self, name: str, nodes: int, ranks: int, *options: str, pace: str = "") -> Run:
        """Launches a run on nodes x ranks, paced when told so; returns it."""
        shape = ["cluster=slurm", f"cluster.nodes={nodes}", f"cluster.ranks_per_node={ranks}", f"cluster.gpus_per_node={ranks}"]
        paced = [*PACED, f"cluster.environment={{AISC_PACE: '{pace}'}}"] if pace else []
        self.aisc("launch", *self.options(name, *shape, *paced, *options))
        return Run(self.cluster, self.folder / "runs" / name)

    def train(self, name: str, *options: str) -> subprocess.Popen[str]:
        """Starts `aisc train` in one process on this machine."""
        command = [sys.executable, "-m", "cli.main", "train", *self.options(name, "engine.processes=1", *options)]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.cluster.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def aisc(self, *arguments: str) -> str:
        """Returns what `aisc` prints."""
        return self.cluster.call(str(Path(sys.executable).with_name("aisc")), *arguments, cwd=self.folder, timeout_s=120)
