"""The chains at full size, not run: every stage composes, is checked and planned for a centre of H800, without torch."""

from __future__ import annotations

import json
import secrets
import struct
from pathlib import Path

import pytest
import yaml

import configs
from cli.chain_plan import make_plan, write_chain
from cli.configured import checked_for_cluster
from cli.main import main
from launch.plan.cost import used_hours
from tests.chains.lab import sections
from tests.kills.lab import make_chats, make_tokenizer

SITE = """
name: example
source: this test
default_partition: gpu
partitions:
  gpu: {{gpu: H800, gpu_memory_gb: 80, gpus_per_node: 8, cpus_per_node: 128, memory_per_node: 2000G, nodes: 64,
        max_time: 3-00:00:00, price_per_gpu_hour: 25.0}}
  cpu: {{cpus_per_node: 64, memory_per_node: 500G, nodes: 8, price_per_node_hour: 4.0}}
cpu_partition: cpu
network: {{interconnect_gb_per_s: 400, within_node_gb_per_s: 200}}
storage: {{runs: {folder}/runs, shared: [{folder}], node_local: /tmp}}
price: {{currency: HK$, subsidy: 0.7, source: this test}}
"""
ROWS = {
    "texts": {"text": "一段文字。", "patient_id": "p"},
    "chats": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "patient_id": "p"},
    "pairs": {"prompt": "a", "chosen": "b", "rejected": "c", "patient_id": "p"},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a site file and rows of each kind."""
    (tmp_path / "site.yaml").write_text(SITE.format(folder=tmp_path))
    for name, row in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(40)))
    return tmp_path


def make_model(place: Path, preset: str) -> Path:
    """Returns a model folder of the preset's shape, with a weights file that holds nothing."""
    folder = place / preset
    make_tokenizer(folder, make_chats(place / "words.jsonl", 40))
    arch = yaml.safe_load((Path(configs.__file__).parent / "model" / f"{preset}.yaml").read_text())["arch"]
    (folder / "config.json").write_text(json.dumps(arch))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return folder


@pytest.mark.parametrize(
    ("name", "preset", "files", "lines"),
    [
        (
            "hkgai_chain_deepseek",
            "deepseek_v3",
            {"cpt": "texts", "sft": "chats", "dpo": "pairs"},
            ["cpt -> sft -> dpo -> evaluate -> release", "32 nodes x 8 GPUs, zero3"],
        ),
        ("oncology_chain_qwen3", "qwen3_8b", {"sft": "chats", "dpo": "pairs"}, ["sft -> dpo -> evaluate -> release", "sft, lora (merged"]),
    ],
)
def test_a_chain_at_full_size_is_checked_and_planned(
    place: Path,
    name: str,
    preset: str,
    files: dict[str, str],
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AISC_PRIVACY_KEY", secrets.token_hex(32))
    data = [f"stages.{stage}.data.train={place / file}.jsonl" for stage, file in files.items()]
    words = [f"experiment={name}", f"model.path={make_model(place, preset)}", f"cluster.site={place / 'site.yaml'}", "data.licence=CC0-1.0", *data]
    assert main(["launch", *words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert all(line in said for line in lines), said[:3000]
    assert said.count("GPU-hours (") == len(files) and not (place / "runs").exists()


def test_a_project_pays_for_the_stages_of_chains(tmp_path: Path) -> None:
    for run, hours in (("chain-aaaaaa/chain-aaaaaa-sft", 100.0), ("chain-aaaaaa/chain-aaaaaa-dpo", 20.0), ("run-bbbbbb", 7.0)):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "launch.yaml").write_text("")
        (tmp_path / run / "plan.json").write_text(json.dumps({"project": "oncology", "gpu_hours": hours}))
    (tmp_path / "chain-aaaaaa" / "chain.json").write_text("{}")
    assert used_hours(tmp_path, "oncology") == 127.0
    assert used_hours(tmp_path, "oncology", this_run="chain-aaaaaa") == 7.0, "a chain does not count against itself"


def test_launching_again_does_not_change_what_a_waiting_job_reads(place: Path) -> None:
    values = {**sections(place, place / "runs", sft={"objective": "sft"}), "cluster": {"name": "slurm", "gpus_per_node": 0}}
    values["data"] = {**values["data"], "train": str(place / "chats.jsonl")}
    values["engine"] = {"backend": "gloo"}
    make_model(place, "qwen3_8b").rename(place / "tokenizer")
    (place / "chain.yaml").write_text(json.dumps(values))
    chain = write_chain(make_plan([str(place / "chain.yaml")], checked_for_cluster), "launch", [])
    frozen = chain.run_of("sft").path / "launch.yaml"
    frozen.write_text("as submitted")
    again = write_chain(make_plan([str(place / "chain.yaml"), "cluster.max_restarts=9"], checked_for_cluster), "launch", [])
    assert again.path == chain.path and frozen.read_text() == "as submitted"
