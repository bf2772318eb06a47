"""Faults in one of two torchrun ranks: who is named, how soon, what is left, and that the same command continues.

    python -m tests.faults.faults KIND ...

Kinds: sigkill, sigstop (real signals); limited (address space of one rank limited from outside by prlimit), disk (file
size limited likewise: a full disk inside a sharded save); memory (an allocation that torch cannot make), exception,
stuck, silent (planted: tests/faults/planted.py); early (an exception before there is an attempt). Prints one line of JSON: what was found, by kind.

Expected of each: the named rank is right, the failure is recorded within the bound, torchrun ends with another code than
0, one rank says one sentence, no stack trace is shown, the newest checkpoint verifies, and a second start ends with the
ledger head of a run that nothing befell.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.jsonlines import read_lines
from configs.runfolder import RunFolder, read_events, read_json, read_ledger
from tests.kills.lab import Lab, only_run
from train.checkpoint_reading import find_latest

ROOT = Path(__file__).parents[2]
STEPS, SAVE_EVERY, FAULT_STEP = 60, 8, 20
HANG_TIMEOUT_S = 8.0
# Beyond the bound: notes are a second apart, and this machine may be busy with other things.
MARGIN_S = 12.0
# torchrun waits 30 s after SIGTERM before it kills what does not answer, a suspended rank for example.
TORCHRUN_S = 45.0
LOST = 1
OPTIONS = (
    "data.sequence_length=64",
    "data.workers=1",
    "training.micro_batch_size=2",
    "training.global_batch_size=4",
    f"training.duration={STEPS} steps",
    f"checkpoint.every={SAVE_EVERY} steps",
    "evaluation.every=end",
    "evaluation.replies=0",
    "optimizer.lr=1e-3",
    f"guard.hang_timeout={HANG_TIMEOUT_S:g} s",
    "guard.weights_check=5",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        kinds: as exit.json may have it.
        code: of exit.json.
        words: in the sentence.
        bound_s: from the fault to exit.json.
        inflict: does it to the process from outside, once FAULT_STEP is reached; None: it is planted.
    """

    kinds: tuple[str, ...]
    code: int
    words: tuple[str, ...]
    bound_s: float
    inflict: Callable[[int], None] | None = None


def limit_memory(pid: int) -> None:
    """Takes from a process the right to any more address space than it has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    size = pages * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def limit_files(pid: int) -> None:
    """Lets a process write files of 4 kB at most: the next part of a checkpoint finds no room."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


FAULTS = {
    "sigkill": Fault(("lost",), 1, ("was killed",), MARGIN_S, lambda pid: os.kill(pid, signal.SIGKILL)),
    "sigstop": Fault(
        ("hang",), 75, ("its process is suspended", "1 rank waits"), HANG_TIMEOUT_S + MARGIN_S, lambda pid: os.kill(pid, signal.SIGSTOP)
    ),
    "memory": Fault(("memory",), 1, ("ran out of memory in", "it asked for", "training.micro_batch_size"), MARGIN_S),
    # Where the C library itself finds no memory (for a thread, say) it aborts: then nobody has a word.
    "limited": Fault(("memory", "error", "lost"), 1, (), MARGIN_S, limit_memory),
    "disk": Fault(("failed",), 1, ("disk full while saving",), MARGIN_S, limit_files),
    "exception": Fault(("error",), 1, ("failed in", "ZeroDivisionError: planted", "rank-00001.log"), MARGIN_S),
    "stuck": Fault(("hang",), 75, ("stands still", "1 rank waits"), HANG_TIMEOUT_S + MARGIN_S),
    "silent": Fault(("failed",), 1, ("replicas of the weights", "first in model.embed_tokens.weight"), MARGIN_S),
}


class Launch:
    """One start by torchrun, each rank's output in a file of its own."""

    def __init__(self, lab: Lab, folder: Path, planted: str | None) -> None:
        self.logs = folder / "torchrun"
        self.runs = folder / "runs"
        self.runs.mkdir()
        program = [str(Path(sys.executable).with_name("aisc"))]
        if planted is not None:
            program = [sys.executable, "-m", "tests.faults.planted", planted, str(LOST), str(FAULT_STEP)]
        torchrun = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2", "--no-python"]
        redirected = [f"--log-dir={self.logs}", "--redirects=3"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        # Memory that is given back is asked for again, so that a limit on it is felt in the next step.
        environment |= {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}
        with (folder / "agent").open("w") as output:
            self.process = subprocess.Popen(
                [*torchrun, *redirected, *program, *lab.command(self.runs)],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_for_step(self, step: int) -> RunFolder:
        """Waits until the run has made `step` updates."""
        deadline = time.monotonic() + 240.0
        while time.monotonic() < deadline:
            for attempts in self.runs.glob("*/attempts"):
                run = RunFolder(attempts.parent)
                if any(line["step"] >= step for a in run.attempts() for line in read_lines(a.ledger_path)):
                    return run
            assert self.process.poll() is None, self.said()
            time.sleep(0.01)
        raise TimeoutError(f"step {step} was not reached\n{self.said()}")

    def said(self) -> str:
        """Returns what all ranks wrote to the screen."""
        return "\n".join(path.read_text() for path in sorted(self.logs.rglob("std*.log")))

    def pid(self, run: RunFolder) -> int:
        """Returns the process of the rank to be lost."""
        note = read_json(run.attempts()[-1].path / "ranks" / f"rank-{LOST:05d}.json")
        assert note is not None
        return int(note["pid"])


def try_fault(lab: Lab, folder: Path, name: str, head: str) -> dict[str, Any]:
    """Makes the fault happen, checks everything, continues; returns what was measured."""
    fault = FAULTS[name]
    launch = Launch(lab, folder, None if fault.inflict else name)
    run = launch.wait_for_step(FAULT_STEP - 1)
    if fault.inflict is not None:
        fault.inflict(launch.pid(run))
    began, wall = time.monotonic(), time.time()
    code = launch.process.wait(timeout=fault.bound_s + TORCHRUN_S)
    ended_s = time.monotonic() - began
    said = launch.said()
    end = read_json(run.attempts()[-1].exit_path)
    assert end is not None, said
    detected_s = end["time"] - wall
    assert code != 0
    assert (end["state"], end["code"]) == ("failed", fault.code) and end["kind"] in fault.kinds, (end, said[-2000:])
    assert f"rank {LOST} (host" in end["cause"], end["cause"]
    # Two copies of the weights that differ do not tell which is right: both are named.
    assert ("rank 0 (host" in end["cause"].split(";")[0]) == (name == "silent"), end["cause"]
    assert all(words in end["cause"] for words in fault.words), end["cause"]
    assert detected_s <= fault.bound_s, (detected_s, end["cause"])
    assert "Traceback" not in said, said
    sentences = [line for line in said.splitlines() if line.startswith(("failed:", "error:"))]
    assert len(sentences) == 1 and end["cause"].splitlines()[0] in sentences[0], sentences
    newest, damaged = find_latest(run)
    assert newest is not None and not damaged and newest.step >= FAULT_STEP - SAVE_EVERY, (newest, damaged)
    stopped_at = read_ledger(run.path)[-1]["step"]
    lab.run(launch.runs, 2)
    ledger = read_ledger(run.path)
    assert [line["step"] for line in ledger] == list(range(1, STEPS + 1))
    assert ledger[-1]["head"] == head
    return {
        "named": [rank for rank in (0, 1) if f"rank {rank} (host" in end["cause"].split(";")[0]],
        "detected_s": round(detected_s, 1),
        "ended_s": round(ended_s, 1),
        "stopped_at": stopped_at,
        "continued_from": newest.step,
        "stacks": len(list(run.path.glob("attempts/1/hang-*/rank-*.txt"))),
        "kind": end["kind"],
        "cause": end["cause"].replace(str(folder), ""),
    }


def try_early(lab: Lab, folder: Path, head: str) -> dict[str, Any]:
    """An exception in one rank before there is an attempt: one sentence, from that rank."""
    launch = Launch(lab, folder, "late")
    code = launch.process.wait(timeout=240.0)
    said = launch.said()
    sentences = [line for line in said.splitlines() if line.startswith(("failed:", "error:"))]
    assert code != 0 and "Traceback" not in said, said
    assert len(sentences) == 1 and f"rank {LOST} (host" in sentences[0] and "ZeroDivisionError" in sentences[0], said
    lab.run(launch.runs, 2)
    assert read_ledger(only_run(launch.runs).path)[-1]["head"] == head
    return {"said": sentences[0]}


def scenario(names: list[str], folder: Path) -> dict[str, Any]:
    """Tries each of the faults."""
    # Before torch is imported: ranks that share cores and spin for each other take minutes for seconds.
    os.environ["OMP_NUM_THREADS"] = "1"
    lab = Lab(folder, OPTIONS)
    alone = lab.run(folder / "alone", 1)
    head = read_ledger(alone.path)[-1]["head"]
    assert not [event for event in read_events(alone.path) if event["event"] in ("hang", "spike", "straggler")]
    found = {}
    for name in names:
        place = folder / name
        place.mkdir()
        print(name, flush=True)
        found[name] = try_early(lab, place, head) if name == "early" else try_fault(lab, place, name, head)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(scenario(sys.argv[1:] or [*FAULTS, "early"], Path(temporary))))
