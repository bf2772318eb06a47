"""Where the time of an attempt goes: rank 0 writes one line for each change of phase. Torch-free.

    attempts/N/phases.jsonl    {"time": 1764111111.123, "phase": "train", "step": 41}

    start-up   from the start of the process: imports, model, rehearsal, loading a checkpoint
    prepare    tokenising and packing, or waiting for who does
    compile    the first step of the attempt
    train      steps that were never made before
    redone     steps made before, by an attempt that was lost with them or before the run went back; and going back
    evaluate   held-out loss and replies
    save       the run stands still for a checkpoint
    tail       export, report
    ended      the process is about to leave

A phase lasts until the next line. What is lost is known only afterwards: launch/segments.py works that out.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from configs.jsonlines import LineFile
from configs.runfolder import Attempt
from configs.timekeeping import made_step, phases_path
from train.activity import CURRENT, Activity

_PHASE_OF = {
    "start": "start-up",
    "load": "start-up",
    "prepare": "prepare",
    "evaluation": "evaluate",
    "replies": "evaluate",
    "save": "save",
    "export": "tail",
    "end": "tail",
}


class Phases:
    """Listens to what this process does. Lines that come before there is an attempt are kept until there is one."""

    # A process may make several runs, one after another; the second does not begin with the process.
    _last_end: float | None = None

    def __init__(self) -> None:
        CURRENT.step = CURRENT.first_step = 0
        self._file: LineFile | None = None
        self._kept: list[dict[str, Any]] = []
        self._phase = ""
        self._made = 0
        self._is_past_first = False
        self._write("start-up", 0, process_began() if Phases._last_end is None else Phases._last_end)
        CURRENT.listener = self.note

    def note(self, activity: Activity) -> None:
        """Takes note of what begins; writes when that is another phase."""
        phase = self._phase_of(activity)
        if phase != self._phase:
            self._write(phase, activity.step, time.time())

    def write_to(self, attempt: Attempt) -> None:
        """Writes to this attempt from now on; steps that earlier attempts have made are redone here."""
        self._made = made_step(attempt.run, below=attempt.number)
        self._file = LineFile(phases_path(attempt))
        for line in self._kept:
            self._file.append(line)
        self._kept = []

    def close(self) -> None:
        """Writes the last line."""
        CURRENT.listener = None
        Phases._last_end = time.time()
        self._write("ended", CURRENT.step, Phases._last_end)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _phase_of(self, activity: Activity) -> str:
        phase = _PHASE_OF.get(activity.phase, "train")
        if activity.first_step == 0:
            return "start-up" if phase == "train" else phase
        self._made = max(self._made, activity.step - 1)
        if phase == "start-up":  # in the middle of the run: it goes back to a checkpoint
            return "redone"
        if phase != "train":
            return phase
        if activity.step == activity.first_step and not self._is_past_first:
            return "compile"
        self._is_past_first = True
        return "redone" if activity.step <= self._made else "train"

    def _write(self, phase: str, step: int, at: float) -> None:
        self._phase = phase
        line = {"time": round(at, 3), "phase": phase, "step": step}
        try:
            if self._file is None:
                self._kept.append(line)
            else:
                self._file.append(line)
        except OSError:  # a full disk: the next save says so
            return


def process_began() -> float:
    """Returns when this process started, in seconds since 1970, to a hundredth."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    uptime_s = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    return time.time() - uptime_s + int(fields[19]) / os.sysconf("SC_CLK_TCK")
