"""Facts of machines and where they differ; what Slurm says of partitions."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.doctor_cluster import check_partitions, read_partitions
from cli.main import main
from configs.schema import ClusterSection
from configs.site import Partition, Site
from launch.machine import differences, facts_here, print_lines, read_lines, with_probes


def test_facts_travel_as_short_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    facts = facts_here({"runs": tmp_path, "stores": tmp_path / "none"}, None)
    assert facts["runs"] == f"{tmp_path} writable" and facts["stores"].endswith("not there")
    text = print_lines(facts)
    assert max(map(len, text.splitlines())) < 1000
    noise = "Lmod has loaded a module\n[\"torn\n" + text + "srun: bye\n"
    assert read_lines(noise) == {"node7": facts}


def test_a_folder_of_the_same_name_on_another_disk_is_told(tmp_path: Path) -> None:
    facts = facts_here({"runs": tmp_path}, None)
    probe = tmp_path / ".aisc-doctor-login-1"
    assert with_probes(facts, {"runs": probe})["runs"] == f"{tmp_path} another folder of that name"
    probe.touch()
    assert with_probes(facts, {"runs": probe}) == facts


def test_differences_put_faults_first_and_pass_over_silence() -> None:
    here = {"python": "3.11.7 /a", "memory": "24 GiB", "library torch": "2.13.0", "same": "x"}
    node1 = {**here, "memory": "2,000 GiB"}
    node2 = {**here, "library torch": "2.12.0"}
    found = differences({"login": here, "node1": node1, "node2": node2, "node3": {"answer": "aisc did not start"}})
    assert [(difference.name, difference.remedy is not None) for difference in found] == [("library torch", True), ("memory", False)]
    assert found[0].values == {"2.13.0": ["login", "node1"], "2.12.0": ["node2"]}


def test_save_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "login.json"
    assert main(["doctor", "--save", str(saved), f"run.dir={tmp_path}"]) == 0
    assert main(["doctor", "--compare", str(saved), f"run.dir={tmp_path}"]) == 0
    assert "ready: nothing differs" in capsys.readouterr().out
    saved.write_text(saved.read_text().replace('"library numpy": "', '"library numpy": "9.'))
    assert main(["doctor", "--compare", str(saved), f"run.dir={tmp_path}"]) == 1
    said = capsys.readouterr().out
    assert "NOT  library numpy" in said and "1 that must not differ" in said and "cluster.setup" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nodes", "0"], "--nodes 0: expected 1 or more"),
        (["--save", "a", "--compare", "b"], "give one of --nodes N, --save FILE, --compare FILE"),
        (["--wait", "5"], "give one of --nodes N"),
        (["--compare", "/nothing/there.json"], "expected a file that aisc doctor --save wrote"),
        (["cluster.partitoin=x"], "did you mean cluster.partition?"),
    ],
)
def test_bad_requests(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    assert sentence in capsys.readouterr().err


SINFO = """\
gpu|up|3-00:00:00|14|gpu:H800:8(S:0-1)
gpu|up|3-00:00:00|2|gpu:H800:8(S:0-1)
mixed|up|infinite|1|gpu:a:2,gpu:b:2
cpu|down|1-00:00:00|8|(null)
"""


def test_partitions_are_read_and_compared_with_the_site_file() -> None:
    partitions = read_partitions(SINFO)
    assert (partitions["gpu"].nodes, partitions["gpu"].gpus) == (16, 8)
    assert partitions["mixed"].gpus == 4 and partitions["cpu"].gpus == 0
    site = Site(default_partition="gpu", cpu_partition="cpu", partitions={"gpu": Partition(gpus_per_node=4), "old": Partition()})
    found = list(check_partitions(ClusterSection(), site, partitions))
    assert [finding.is_ok for finding in found] == [True, False, False, False]
    assert "gpu (cluster.partition): up, 16 nodes, at most 3-00:00:00" in found[0].found
    assert "partitions.gpu.gpus_per_node=4: Slurm says 8" in found[2].found
    assert "partitions.old: Slurm has none of that name" in found[3].found and "gpu (16 nodes x 8 GPUs)" in found[3].remedy
