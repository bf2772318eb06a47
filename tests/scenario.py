"""Scenarios in a process of their own: they fork ranks from what they have imported, and pytest's own may have threads."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 1500.0


def run_scenario(module: str, *arguments: str) -> list[Any]:
    """Runs `python -m module` and returns its output, JSON line by JSON line; what libraries print between is left out.

    Raises:
        AssertionError: it exited with another code than 0; the message holds the end of what it printed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    found = []
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found
