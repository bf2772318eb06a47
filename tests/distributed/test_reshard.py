"""A run that changes engine and number of ranks ends as one left alone: same ledger, same losses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.reshard import BOUND, CHAINS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("chain", "adapter"), [("both", "none"), ("both", "lora")])
def test_other_engines_and_ranks_continue_the_same_run(chain: str, adapter: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.reshard", chain, adapter],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["attempts"] == len(CHAINS[chain])
    assert 0 < found["stopped_at"][0] < found["stopped_at"][1]
    assert max(found["loss"], found["eval_loss"], found["grad_norm"]) <= BOUND
