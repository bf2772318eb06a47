"""`aisc runs follow`: what a run prints and does, as it comes, until it ends. Leaving does not stop it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from configs.jsonlines import read_lines
from configs.runfolder import RunFolder, state_of
from launch.explain import explain
from launch.live import Queue, ask_queue, jobs_of
from launch.records import jobs_folder, read_jobs
from launch.words import spell_length

if TYPE_CHECKING:
    from rich.console import Console

LOOK_EVERY_S, ASK_EVERY_S, STEPS_EVERY_S = 1.0, 10.0, 30.0
# Of what was printed before, so much is shown.
TAIL_BYTES = 2000
EXIT = {"done": 0, "stopped": 75}


class Tail:
    """The end of a file that grows; another file takes its place when a run is submitted again."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._at = 0

    def read(self, path: Path) -> list[str]:
        """Returns the whole lines that came since the last call."""
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if path != self._path:
                    self._path, self._at = path, max(0, size - TAIL_BYTES)
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return whole.decode(errors="replace").splitlines()


def follow(screen: Console, run: RunFolder) -> int:
    """Prints until the run has ended; returns 0 when it is done, 75 when it stopped, 1 when it failed. Ctrl-C leaves it."""
    try:
        queue = _watch(screen, run)
    except KeyboardInterrupt:
        screen.print(f"\n{run.name} goes on   stop  aisc runs stop {run.name} (saves first)", soft_wrap=True)
        return 0
    _tell(screen, explain(run.path, now=time.time(), queue=queue))
    return EXIT.get(state_of(run.path).state, 1)


def _watch(screen: Console, run: RunFolder) -> Queue:
    """Prints what comes; returns when nothing of the run works or waits any more, with the last answer of the queue."""
    tail, asked, headline, note, shown_at, shown_step = Tail(), 0.0, "", "", 0.0, -1
    queue = Queue()
    while True:
        jobs = read_jobs(run.path)
        now = time.time()
        if now - asked >= ASK_EVERY_S:
            queue, asked = ask_queue(jobs_of(run.path)), now
            if queue.note and queue.note != note:
                note = queue.note
                screen.print(Text(note), style="dim", soft_wrap=True)
            story = explain(run.path, now=now, queue=queue)
            if story[0].split(", step")[0] != headline:
                headline = story[0].split(", step")[0]
                screen.print(Text(story[0]), style="bold", soft_wrap=True)
        if jobs:
            _tell(screen, tail.read(jobs_folder(run.path) / f"{jobs[-1].job_id}.out"))
        if now - shown_at >= STEPS_EVERY_S and (line := last_step(run)) is not None and line[0] != shown_step:
            shown_at, shown_step = now, line[0]
            screen.print(Text(line[1]), soft_wrap=True)
        if has_ended(run.path, queue):
            queue = ask_queue(jobs_of(run.path))
            if has_ended(run.path, queue):
                if jobs:
                    _tell(screen, tail.read(jobs_folder(run.path) / f"{jobs[-1].job_id}.out"))
                return queue
        time.sleep(LOOK_EVERY_S)


def has_ended(run: Path, queue: Queue) -> bool:
    """True when no job of the run works or waits, and no process trains it."""
    state = state_of(run).state
    if any(job.works or job.waits for job in queue.jobs.values()):
        return False
    # Without an answer an end is believed only when the run says that nothing comes after it.
    return state == "done" if queue.note else state != "running"


def last_step(run: RunFolder) -> tuple[int, str] | None:
    """Returns (step, `3,120/8,010  loss 2.214  5 h 30 left`) of the attempt at work; None before its first step."""
    attempts = [attempt for attempt in run.attempts()[-1:] if not attempt.exit_path.exists()]
    steps = [line for line in read_lines(attempts[-1].metrics_path) if "loss" in line][-50:] if attempts else []
    if not steps:
        return None
    total = int((attempts[-1].read_start() or {}).get("total_steps", 0))
    made = int(steps[-1]["step"]) - int(steps[0]["step"])
    pace = (float(steps[-1]["time"]) - float(steps[0]["time"])) / made if made else 0.0
    left = f"  {spell_length(pace * (total - int(steps[-1]['step'])))} left" if made and total else ""
    return int(steps[-1]["step"]), f"{steps[-1]['step']:,}/{total:,}  loss {steps[-1]['loss']:.3f}{left}"


def _tell(screen: Console, lines: list[str]) -> None:
    for line in lines:
        screen.print(Text(line), soft_wrap=True)
