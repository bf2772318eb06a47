"""A killed and a suspended rank under torchrun; the other faults are in `python -m tests.soak faults`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.faults import HANG_TIMEOUT_S, MARGIN_S

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.faults", "sigkill", "sigstop"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def test_a_killed_rank_is_named_at_once_and_the_run_continues(found: dict[str, Any]) -> None:
    assert found["sigkill"]["named"] == [1]
    assert found["sigkill"]["detected_s"] <= MARGIN_S
    assert 0 < found["sigkill"]["continued_from"] <= found["sigkill"]["stopped_at"]


def test_a_suspended_rank_is_named_within_the_bound_with_stacks(found: dict[str, Any]) -> None:
    assert found["sigstop"]["named"] == [1]
    assert HANG_TIMEOUT_S - 1 <= found["sigstop"]["detected_s"] <= HANG_TIMEOUT_S + MARGIN_S
    assert found["sigstop"]["stacks"] == 1, "that of the rank that lives"
    assert "its process is suspended; 1 rank waits for it in all_reduce: train/step.py:" in found["sigstop"]["cause"]
