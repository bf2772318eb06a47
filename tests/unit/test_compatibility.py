"""The compatibility page is what the rules say, and points at tests that are there and run what the rules allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.compatibility import COLUMNS, DEVICES, EVIDENCE, ROWS, Evidence, page, verdict

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_rules_say() -> None:
    found = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    assert found == page(), "python -m configs.compatibility > docs/compatibility.md"


@pytest.mark.parametrize("evidence", EVIDENCE, ids=lambda evidence: evidence.test)
def test_evidence_is_a_test_of_what_is_legal(evidence: Evidence) -> None:
    assert (ROOT / evidence.test).is_file()
    assert set(evidence.rows) <= ROWS.keys() and set(evidence.columns) <= COLUMNS.keys()
    for row in evidence.rows:
        for column in evidence.columns:
            assert verdict(DEVICES[evidence.device], row, column)[0] == []


def test_a_few_cells_that_must_never_change_unseen() -> None:
    assert verdict(0, "zero3", "dora")[0] and verdict(8, "fsdp2", "dora")[0]
    assert verdict(0, "zero1", "fp16")[0] and verdict(8, "zero1", "fp16") == ([], [])
    assert verdict(0, "hsdp", "1 rank")[0]
    assert verdict(8, "ddp", "bf16") == ([], ["training.precision=bf16: that these GPUs have bf16 arithmetic is checked at start"])
