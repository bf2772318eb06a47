"""The site file: what is missing is asked for by name, what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

import configs.site
from configs.errors import ConfigError
from configs.schema import ClusterSection
from configs.site import missing_keys, parse_site, read_site


def example() -> str:
    """Returns the site file that the module's docstring shows."""
    return "\n".join(line[4:] for line in (configs.site.__doc__ or "").splitlines() if line.startswith("    "))


def test_the_documented_example_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(example())
    site = parse_site(path)
    assert missing_keys(site) == []
    gpu = site.partition(None)
    assert gpu is not None and (gpu.gpu, gpu.gpus_per_node, gpu.price_per_gpu_hour) == ("H800", 8, 25.0)
    assert (site.subsidy("oncology"), site.subsidy("other"), site.subsidy(None)) == (0.9, 0.7, 0.7)


def test_every_problem_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("nam: x\npartitions:\n  gpu: {gpus: 8, gpus_per_node: x}\nprice: {subsidy: 70}\ndefault_partition: big\n")
    with pytest.raises(ConfigError) as caught:
        parse_site(path)
    assert caught.value.problems == [
        f"{path}:1: nam: no such key; did you mean name?",
        f"{path}:3: partitions.gpu.gpus: no such key; did you mean gpu?",
        f"{path}:3: partitions.gpu.gpus_per_node=x: expected a whole number",
        f"{path}: price.subsidy=70: expected a share from 0 to 1, such as 0.7",
        f"{path}: default_partition=big: not among partitions: gpu",
    ]


def test_aisc_asks_for_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISC_SITE", str(tmp_path / "site.yaml"))
    (tmp_path / "site.yaml").write_text("partitions:\n  gpu: {gpus_per_node: 8}\n")
    with pytest.raises(ConfigError) as caught:
        read_site(ClusterSection(name="aisc"))
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "default_partition is missing",
        "storage.runs is missing",
        "price.subsidy is missing",
        "price.source is missing",
        "partitions.gpu.gpu is missing",
        "partitions.gpu.gpu_memory_gb is missing",
        "partitions.gpu.price_per_gpu_hour is missing",
    ]
    assert read_site(ClusterSection(name="slurm")).partitions["gpu"].gpus_per_node == 8


def test_the_site_file_of_the_documentation_is_complete(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "on-your-cluster.md").read_text(encoding="utf-8")
    text = next(block.split("```")[0] for block in page.split("```yaml\n") if block.startswith("name:"))
    (tmp_path / "site.yaml").write_text(text, encoding="utf-8")
    assert missing_keys(parse_site(tmp_path / "site.yaml")) == []
