"""Whole runs of `aisc train`, killed, stopped, suspended and continued; compared with one left alone.

    python -m tests.kills.whole_run kills WORLD NUMBER_OF_KILLS SEED
    python -m tests.kills.whole_run worlds|suspended|stop_file|full_disk

Prints one line of JSON. A run left alone and a run killed N times must agree bitwise: ledger head, every loss, weights,
optimizer state, exported files. LoRA dropout is on, so the random state counts too.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.jsonlines import read_lines
from configs.runfolder import RunFolder, read_json, read_ledger, read_metrics, request_stop, state_of
from tests.kills.lab import Lab, Process, only_run
from train.checkpoint_reading import checkpoint_of, find_latest

STEPS = 24
SAVE_EVERY = 4
OPTIONS = (
    "adapter=lora",
    "adapter.dropout=0.1",
    "adapter.rank=4",
    "data.sequence_length=64",
    "data.workers=1",
    "training.micro_batch_size=1",
    "training.global_batch_size=6",
    f"training.duration={STEPS} steps",
    f"checkpoint.every={SAVE_EVERY} steps",
    "evaluation.every=3 steps",
    "evaluation.replies=1",
    "evaluation.max_new_tokens=4",
    "optimizer.lr=1e-3",
)
MOMENTS = ("step", "save", "evaluation", "start", "export")


def facts_of(run: RunFolder) -> dict[str, Any]:
    """Returns everything of a finished run that must not depend on how often it was killed."""
    last = checkpoint_of(run, STEPS)
    tensors = {name: hashlib.sha256(last.read(name).tobytes()).hexdigest() for name in sorted(last.names())}
    exported = sorted(path for path in (run.path / "model").rglob("*") if path.suffix == ".safetensors")
    assert exported
    losses = {
        f"{key} {line['step']}": line[key]
        for line in read_metrics(run.path)
        for key in ("loss", "grad_norm", "eval_loss")
        if key in line
    }
    ledger = read_ledger(run.path)
    assert [line["step"] for line in ledger] == list(range(1, STEPS + 1))
    assert ledger[-1]["head"] == last.state["ledger"]
    return {
        "ledger": last.state["ledger"],
        "tensors": tensors,
        "exported": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in exported},
        "losses": losses,
        "heads": [line["head"] for line in ledger],
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the names of facts that differ, down to the single tensor or loss."""
    found = []
    for key, value in one.items():
        if isinstance(value, dict):
            names = value.keys() | other[key].keys()
            found += [f"{key}/{name}" for name in sorted(names) if value.get(name) != other[key].get(name)]
        elif value != other[key]:
            found.append(key)
    return found


def moment_has_come(moment: str, attempts: int, after: int) -> Callable[[RunFolder], bool]:
    """Returns what to watch for: the newest of `attempts` attempts is at `moment`, past step `after`."""

    def happened(run: RunFolder) -> bool:
        known = run.attempts()
        if len(known) < attempts:
            return False
        if moment == "start":
            return True
        newest = known[-1]
        if moment == "step":
            return any("loss" in line and line["step"] > after for line in read_lines(newest.metrics_path))
        kind = {"save": "saving", "evaluation": "evaluating", "export": "exporting"}[moment]
        events = read_lines(newest.events_path)
        last = events[-1] if events else {"event": "none"}
        return bool(last["event"] == kind and (moment == "export" or last["step"] > after))

    return happened


def was_hit(moment: str, run: RunFolder) -> bool:
    """True when the files left by the kill show that it fell into `moment`."""
    attempt = run.attempts()[-1]
    events = read_lines(attempt.events_path)
    last = events[-1] if events else {"event": "none"}
    if moment == "start":
        return not attempt.metrics_path.exists() or not read_lines(attempt.metrics_path)
    if moment == "save":
        return bool(last["event"] == "saving")
    if moment == "evaluation":
        evaluated = [line["step"] for line in read_lines(attempt.metrics_path) if "eval_loss" in line]
        return bool(last["event"] == "evaluating" and last["step"] not in evaluated)
    if moment == "export":
        return bool(last["event"] == "exporting")
    return bool(last["event"] in ("saved", "removed", "evaluating", "started"))


def kill_once(lab: Lab, run_dir: Path, world: int, moment: str, chance: random.Random) -> tuple[bool, bool]:
    """Starts the next attempt and kills it at `moment`; returns whether it was killed at all, and then."""
    runs = list(run_dir.glob("*/attempts"))
    before = RunFolder(runs[0].parent) if runs else None
    attempts = len(before.attempts()) if before else 0
    newest = find_latest(before)[0] if before else None
    done = newest.step if newest else 0
    after = min(done + chance.randrange(0, SAVE_EVERY + 2), STEPS - 2 * SAVE_EVERY)
    process = lab.start(run_dir, world)
    if not process.until(moment_has_come(moment, attempts + 1, after)):
        return False, False
    time.sleep(chance.uniform(0.0, {"save": 0.006, "evaluation": 0.02, "export": 0.02}.get(moment, 0.05)))
    # A lost machine takes all ranks with it; a lost process leaves the others to notice.
    ranks = chance.choice([None, [0], [world - 1]])
    codes = process.kill(ranks)
    assert any(code == -signal.SIGKILL for code in codes) or 0 in codes, codes
    return -signal.SIGKILL in codes, was_hit(moment, only_run(run_dir))


def killed_run(
    lab: Lab, folder: Path, world: int, moments: list[str], chance: random.Random, reference: dict[str, Any]
) -> Counter[str]:
    """Kills one run at each of `moments` in turn, lets it finish and compares; returns counts of kills and hits."""
    counts: Counter[str] = Counter()
    for moment in moments:
        killed, hit = kill_once(lab, folder, world, moment, chance)
        counts["kills"] += killed
        counts[f"hit {moment}"] += killed and hit
        if not killed:
            break
    run = only_run(folder)
    if state_of(run.path).state != "done":
        lab.run(folder, world)
    found = differences(reference, facts_of(run))
    assert not found, f"{world} ranks, killed in {moments}: {len(found)} facts differ, first {found[:5]}"
    counts["runs"] += 1
    counts["attempts"] += len(run.attempts())
    return counts


def kills(world: int, number: int, seed: int) -> dict[str, int]:
    """Kills runs on `world` ranks until `number` kills were made, at every moment in turn, up to three in one run."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), OPTIONS)
        reference = facts_of(lab.run(Path(folder) / "alone", world))
        again = facts_of(lab.run(Path(folder) / "again", world))
        assert not differences(reference, again), "two runs left alone differ: nothing can be said about killed ones"
        planned = [MOMENTS[(seed + i) % len(MOMENTS)] for i in range(4 * number)]
        trial = 0
        while counts["kills"] < number:
            at_once = min(chance.choice([1, 2, 3]), number - counts["kills"])
            if number > 1 and trial == 0:
                at_once = 2  # twice in a row is always among them
            moments = [planned.pop(0) for _ in range(at_once)]
            moments.sort(key=lambda moment: moment == "export")  # an export only comes at the end
            counts += killed_run(lab, Path(folder) / f"killed-{trial}", world, moments, chance, reference)
            trial += 1
    return dict(counts)


def worlds() -> dict[str, Any]:
    """2, then 1, then 3 ranks, stopped by SIGTERM (twice) and by SIGUSR1; dropout off."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), [*(option for option in OPTIONS if "dropout" not in option), "adapter.dropout=0"])
        reference = facts_of(lab.run(Path(folder) / "alone", 1))
        changing = Path(folder) / "changing"
        first = lab.start(changing, 2)
        assert first.until(moment_has_come("step", 1, 5))
        first.send(signal.SIGTERM)
        first.send(signal.SIGTERM)
        assert first.wait() == [75, 75]
        run = only_run(changing)
        stopped_at = [find_latest(run)[0].step]  # type: ignore[union-attr]
        assert state_of(run.path).state == "stopped"
        second = lab.start(changing, 1)
        assert second.until(moment_has_come("step", 2, stopped_at[0] + 2))
        second.send(signal.SIGUSR1)
        assert second.wait() == [75]
        stopped_at.append(find_latest(run)[0].step)  # type: ignore[union-attr]
        lab.run(changing, 3)
        facts = facts_of(run)
        assert facts["heads"] == reference["heads"]
        assert facts["losses"].keys() == reference["losses"].keys()
        worst = max(abs(facts["losses"][k] / reference["losses"][k] - 1) for k in facts["losses"] if "loss" in k)
        assert worst <= 1e-5, worst
    return {"stopped_at": stopped_at, "worst_relative_difference_of_losses": worst, "losses": len(facts["losses"])}


def stop_file() -> dict[str, Any]:
    """A run without end on two ranks, asked to stop by the file `stop`."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), [*OPTIONS, "training.duration=100000 steps", "evaluation.every=end"])
        process = lab.start(Path(folder) / "runs", 2)
        assert process.until(moment_has_come("step", 1, 2))
        run = only_run(Path(folder) / "runs")
        request_stop(run.path)
        assert process.wait() == [75, 75]
        newest = find_latest(run)[0]
        assert newest is not None and newest.step == read_metrics(run.path)[-1]["step"]
        assert state_of(run.path).state == "stopped"
    return {"stopped_at": newest.step}


def full_disk() -> dict[str, Any]:
    """Two ranks; the system refuses one of them files above a size, from its first checkpoint on; then room is made."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), OPTIONS)
        reference = facts_of(lab.run(Path(folder) / "alone", 2))
        process = lab.start(Path(folder) / "runs", 2)
        assert process.until(lambda run: any(e["event"] == "saved" for e in read_lines(run.attempts()[-1].events_path)))
        resource.prlimit(process.pids[1], resource.RLIMIT_FSIZE, (100_000, 100_000))
        assert process.wait() == [1, 1]
        run = only_run(Path(folder) / "runs")
        newest, skipped = find_latest(run)
        assert newest is not None and not skipped
        end = read_json(run.attempts()[-1].exit_path)
        assert end is not None and end["state"] == "failed", end
        found = re.match(r"rank 1 \(host \S+, pid \d+\): disk full while saving step (\d+) in ", end["cause"])
        assert found, end
        failed_at = int(found[1])
        assert newest.step < failed_at
        # The failure was found behind the training; all ranks left the loop after the same step.
        steps_made = read_metrics(run.path)[-1]["step"]
        assert failed_at <= steps_made <= failed_at + SAVE_EVERY
        assert len(list(run.attempts()[-1].checkpoints.glob(".tmp-*"))) == 0
        facts = facts_of(lab.run(Path(folder) / "runs", 2))
        assert not differences(reference, facts)
    return {"failed_at": failed_at, "steps_made": steps_made, "cause": end["cause"]}


def suspended() -> dict[str, Any]:
    """An attempt suspended in mid-run, superseded by one that finishes, then woken."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), OPTIONS)
        run_dir = Path(folder) / "runs"
        stale = lab.start(run_dir, 1)
        assert stale.until(moment_has_come("step", 1, SAVE_EVERY + 1))
        stale.send(signal.SIGSTOP)
        run = lab.run(run_dir, 1)
        facts, before = facts_of(run), contents(run)
        stale.send(signal.SIGCONT)
        codes = stale.wait()
        assert codes == [1], codes
        assert contents(run) == before
        assert facts_of(run) == facts
        assert state_of(run.path).state == "done"
        end = read_json(run.attempts()[0].exit_path)
        assert end is not None and end["state"] == "superseded", end
        reference = facts_of(lab.run(Path(folder) / "alone", 1))
        assert not differences(reference, facts)
    return {"files_compared": len(before), "cause": end["cause"]}


def contents(run: RunFolder) -> dict[str, str]:
    """Returns the hash of every file of the run outside the first attempt, by path."""
    stale = run.attempts()[0].path
    files = [path for path in run.path.rglob("*") if path.is_file() and stale not in path.parents]
    return {str(path.relative_to(run.path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def describe(process: Process) -> str:
    """Returns the last lines that a start's ranks printed."""
    return "\n".join(path.read_text()[-1000:] for path in sorted(process.run_dir.glob("log-*")))


if __name__ == "__main__":
    scenarios: dict[str, Callable[..., dict[str, Any]]] = {
        **{"kills": kills, "worlds": worlds, "suspended": suspended, "stop_file": stop_file},
        "full_disk": full_disk,
    }
    print(json.dumps(scenarios[sys.argv[1]](*map(int, sys.argv[2:]))))
