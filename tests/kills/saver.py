"""Saves known checkpoints without torch, to be killed and starved while it does. Imports in a tenth of a second."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from configs.errors import RunFailed
from configs.runfolder import Attempt, RunFolder
from train.checkpoint_files import Ranks, Saved, agree_on_plan, save_checkpoint
from train.checkpoint_reading import Checkpoint, begin_attempt, find_latest, retire
from train.shard_files import Block
from train.shard_plan import BlockSpec

NAMES = ("model.embed.weight", "model.norm.weight", "optimizer.embed.weight.exp_avg", "rng.00000.cpu")
# Every function of `os` through which the protocol, tidying up and the run folder reach the system.
SYSTEM_CALLS = (
    *("open", "close", "read", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir"),
    *("stat", "lstat", "listdir", "scandir", "statvfs"),
)
KILLED = 137


def blocks_of(step: int, *, elements: int = 600) -> dict[str, Block]:
    """Returns tensors whose every element tells the step: fp32, BF16 (as words), a scalar, random bytes."""
    values = np.arange(elements, dtype=np.float32).reshape(-1, 6) + step * 1000
    arrays = (
        (values, "F32"),
        (values.view("<u4").astype("<u2")[0], "BF16"),
        (np.array(step, dtype=np.float32), "F32"),
        (np.random.default_rng(step).integers(0, 256, 64).astype(np.uint8), "U8"),
    )
    return {name: Block.whole(array, dtype) for name, (array, dtype) in zip(NAMES, arrays, strict=True)}


def save(run: RunFolder, attempt: Attempt, step: int, *, keep: int = 2, elements: int = 600) -> None:
    """Saves `step` and tidies up, as a run of one process does."""
    state = {"step": step, "ledger": f"head-{step}", "best_step": None}
    save_blocks(attempt, step, blocks_of(step, elements=elements), state, Ranks.single())
    retire(run, attempt, keep=keep, best_step=None)


def save_blocks(
    attempt: Attempt, step: int, blocks: Mapping[str, Block | list[Block]], state: dict[str, Any], ranks: Ranks
) -> Saved:
    """Agrees on a plan for blocks by the tensor's name, and saves them."""
    held = {}
    for name, some in blocks.items():
        held.update({BlockSpec.of(name, block): block for block in (some if isinstance(some, list) else [some])})
    plan = agree_on_plan(list(held), ranks)
    return save_checkpoint(attempt, step, plan, {spec.key: block for spec, block in held.items()}, state, ranks)


def check(checkpoint: Checkpoint, *, elements: int = 600) -> None:
    """Raises AssertionError unless every tensor and the state are those of the checkpoint's step."""
    expected = blocks_of(checkpoint.step, elements=elements)
    assert sorted(checkpoint.names()) == sorted(expected)
    for name, block in expected.items():
        assert checkpoint.read(name).tobytes() == block.data.tobytes(), f"{checkpoint.folder}: {name}"
    assert checkpoint.state["ledger"] == f"head-{checkpoint.step}"


def in_child(work: Callable[[], object]) -> int:
    """Runs `work` in a forked process; returns its exit status, negative for a signal, 1 for an uncaught error."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        work()
        code = 0
    except RunFailed as error:
        sys.stdout.write(f"{error}\n")
        sys.stdout.flush()
        code = 3
    finally:
        os._exit(code)


def suspend_at(number: int, work: Callable[[], object]) -> NoReturn:
    """Runs `work` in this forked process, which suspends itself before the `number`-th system call; then ends."""
    try:
        break_call(number, "suspend")
        work()
    except RunFailed:
        pass
    finally:
        os._exit(0)


def break_call(number: int, fault: str) -> dict[str, Any]:
    """Changes the `number`-th call of SYSTEM_CALLS.

    Args:
        fault: `kill` before it, `torn` after half a write, `suspend` before it, else the name of an errno to raise.

    Returns:
        A dict whose "calls" counts calls and whose "broken" names the one that failed.
    """
    seen: dict[str, Any] = {"calls": 0, "broken": None}

    def wrap(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            seen["calls"] += 1
            if seen["calls"] == number:
                seen["broken"] = name
                if fault == "suspend":
                    os.kill(os.getpid(), signal.SIGSTOP)
                    return original(*args, **kwargs)
                if fault == "torn" and name == "write":
                    original(args[0], bytes(args[1])[: len(args[1]) // 2])
                if fault in ("kill", "torn"):
                    os._exit(KILLED)
                raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)), "somewhere")
            return original(*args, **kwargs)

        return call

    for name in SYSTEM_CALLS:
        setattr(os, name, wrap(name))
    return seen


def fault_at_every_call(fault: str) -> dict[str, int]:
    """Breaks a save at its first call, its second, ... until one goes through unharmed; checks the folder each time.

    Returns:
        Number of faults, and how often the old and the new checkpoint was the newest afterwards.
    """
    counts = {"faults": 0, "old": 0, "new": 0}
    with tempfile.TemporaryDirectory() as folder:
        while True:
            run = RunFolder(Path(folder) / f"run-{counts['faults']}")
            attempt, _, _ = begin_attempt(run, {})
            save(run, attempt, 1)
            number = counts["faults"] + 1

            def work(run: RunFolder = run, attempt: Attempt = attempt, number: int = number) -> None:
                seen = break_call(number, fault)
                save(run, attempt, 2, keep=1)
                assert seen["broken"] is None or fault not in ("kill", "torn")
                if seen["calls"] < number:
                    os._exit(9)  # the save has fewer calls than `number`: all were tried

            code = in_child(work)
            newest, skipped = find_latest(run)
            assert not skipped, skipped
            assert newest is not None and newest.step in (1, 2), f"call {number}: no checkpoint left"
            check(newest)
            if code == 9:
                assert newest.step == 2
                return counts
            # An error of a call that only tidies up or reads may be harmless (0); the rest is said in words (3).
            assert code in ((KILLED,) if fault in ("kill", "torn") else (0, 3)), f"call {number}: exit {code}"
            if fault not in ("kill", "torn") and code == 3 and newest.step == 1:
                assert not list(attempt.checkpoints.glob(".tmp-*")), f"call {number}: half-written folder left"
            second, _, _ = begin_attempt(run, {})
            save(run, second, 3, keep=1)
            after, _ = find_latest(run)
            assert after is not None and after.step == 3, f"call {number}: cannot go on"
            check(after)
            assert [path.name for a in run.attempts() for path in a.checkpoints.iterdir()] == ["step-00000003"]
            counts["faults"] += 1
            counts["old" if newest.step == 1 else "new"] += 1


def kill_at_random(kills: int, seed: int, *, elements: int = 60_000) -> dict[str, int]:
    """Kills a process that saves without pause, `kills` times, and continues from what is found each time.

    Returns:
        Number of kills, of those that hit a save in the middle (a half-written folder was left), and of steps saved.
    """
    chance = random.Random(seed)
    counts = {"kills": 0, "half_written": 0, "steps": 0}
    with tempfile.TemporaryDirectory() as folder:
        # Late enough for some saves to get through, on a busy machine too.
        longest_s = max(0.06, 6 * seconds_of_a_save(Path(folder) / "timed", elements))
        run = RunFolder(Path(folder) / "run")
        step = 0
        for _ in range(kills):
            attempt, start, skipped = begin_attempt(run, {})
            assert not skipped, skipped
            assert (0 if start is None else start.step) == step
            reported = _save_until_killed(run, attempt, step, chance.uniform(0.0, longest_s), elements)
            counts["kills"] += 1
            counts["half_written"] += bool(list(attempt.checkpoints.glob(".tmp-*")))
            newest, skipped = find_latest(run)
            assert not skipped, skipped
            found = 0 if newest is None else newest.step
            assert reported <= found <= reported + 1, f"reported {reported}, found {found}"
            if newest is not None:
                check(newest, elements=elements)
            counts["steps"] += found - step
            step = found
    return counts


def seconds_of_a_save(folder: Path, elements: int) -> float:
    """Returns how long a save takes here and now."""
    run = RunFolder(folder)
    attempt, _, _ = begin_attempt(run, {})
    began = time.perf_counter()
    save(run, attempt, 1, elements=elements)
    return time.perf_counter() - began


def _save_until_killed(run: RunFolder, attempt: Attempt, step: int, after_s: float, elements: int) -> int:
    """Returns the last step that the killed process had reported as saved."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _save_forever(run, attempt, step, writing, elements)
    os.close(writing)
    timer = threading.Timer(after_s, os.kill, (pid, signal.SIGKILL))
    timer.start()
    reported = step
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            reported = int(line)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    timer.join()
    return reported


def _save_forever(run: RunFolder, attempt: Attempt, step: int, writing: int, elements: int) -> NoReturn:
    try:
        while True:
            step += 1
            save(run, attempt, step, keep=1, elements=elements)
            os.write(writing, f"{step}\n".encode())
    finally:
        os._exit(1)


if __name__ == "__main__":
    if sys.argv[1] == "faults":
        print(fault_at_every_call(sys.argv[2]))
    else:
        print(kill_at_random(int(sys.argv[2]), int(sys.argv[3])))
    assert "torch" not in sys.modules
