"""Every engine gives the plain loop's twenty losses and gradient norms: 40 cases that hold every pair of choices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import matrix

ROOT = Path(__file__).parents[2]
ENTRIES = {entry.name: entry for entry in matrix.ci_entries()}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Runs everything once, in a process that forks its ranks: pytest's own may have threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.matrix", "pairs"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_at_most_forty_cases_hold_every_pair() -> None:
    assert len(ENTRIES) <= 40
    assert {entry.form for entry in ENTRIES.values()} == set(matrix.FORMS)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_engine_is_the_plain_loop(found: dict[str, Any], name: str) -> None:
    result = found["cases"][name]
    assert "error" not in result, result["error"]
    assert matrix.holds(ENTRIES[name], result), {key: result[key] for key in ("loss", "grad_norm", "eval_loss", "moved")}


@pytest.mark.parametrize("name", sorted(path.stem for path in matrix.GOLDEN.glob("*.txt")))
def test_the_plain_loop_is_the_golden_curve(found: dict[str, Any], name: str) -> None:
    golden = matrix.read_golden(name)
    assert len(golden["loss"]) == matrix.STEPS
    for key in ("loss", "grad_norm"):
        assert matrix.worst(found["golden"][name][key], golden[key]) <= matrix.BOUND
