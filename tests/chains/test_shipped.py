"""The shipped oncology_chain, reduced: from real corpora to a released folder by one command. hkgai_chain: tests/slurm."""

from __future__ import annotations

from pathlib import Path

from launch.chain import verified_model
from tests.chains.both_ways import ENGINE, heads, only_chain
from tests.chains.lab import aisc
from tests.chains.reduced import oncology_chain


def test_oncology_chain_from_raw_data_to_a_released_folder(tmp_path: Path) -> None:
    code, said = aisc("train", *oncology_chain(tmp_path), *ENGINE, f"run.dir={tmp_path / 'runs'}")
    assert code == 0, said
    chain = only_chain(tmp_path / "runs")
    assert [(one.name, one.state) for one in chain.info().stages] == [(name, "done") for name in ("sft", "dpo", "evaluate", "release")]
    assert len(heads(chain)) == 2 and verified_model(chain.run_of("dpo"))
    released = {path.name for path in (chain.run_of("dpo").path / "release").iterdir()}
    assert {"model", "README.md", "data_card.md", "board.html", "paper", "evidence", "release.json"} <= released
