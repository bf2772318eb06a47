"""What is known before anything heavy is imported: the model from its config.json, the machine, the versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.schema import ClusterSection, RunConfig
from configs.site import Site


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts for checks; null means unknown, and a rule that needs it is checked at the start of the run.

    Attributes:
        model: values of config.json, or of `model.arch`.
        num_gpus: visible GPUs of this machine.
        world_size: ranks that a launcher started; None outside one.
        versions: installed version by distribution; a name that is missing is not installed, an empty mapping unknown.
        gpu_bytes: memory of one of them, as its name says; the smallest where they differ.
        host_bytes: main memory of this machine that the process may use.
    """

    num_gpus: int
    model: dict[str, Any] = field(default_factory=dict)
    world_size: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    gpu_bytes: int | None = None
    host_bytes: int | None = None

    @property
    def max_positions(self) -> int | None:
        value = self.model.get("max_position_embeddings")
        return int(value) if isinstance(value, int) else None


def facts_of(config: RunConfig) -> Facts:
    """Reads the facts of `config` on this machine, without torch."""
    gpus = count_gpus()
    return Facts(
        num_gpus=gpus,
        model=_model_values(config),
        world_size=_launched_ranks(),
        versions=_installed(),
        gpu_bytes=gpu_memory_bytes() if gpus else None,
        host_bytes=host_memory_bytes(),
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a cluster a job takes: nodes, and of each its GPUs, ranks and cores for each rank."""

    nodes: int
    gpus_per_node: int
    ranks_per_node: int
    cpus_per_rank: int

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


def shape_of(cluster: ClusterSection, site: Site) -> Shape:
    """Returns the job's shape with every `auto` replaced from the site file.

    Raises:
        ConfigError: the file does not say how many GPUs a node has, or they are fewer than asked.
    """
    partition = site.partition(cluster.partition)
    gpus = cluster.gpus_per_node
    if isinstance(gpus, str):
        if partition is None:
            raise ConfigError(
                f"cluster.gpus_per_node=auto: {site.path or 'no site file'} says nothing of partition "
                f"{cluster.partition or site.default_partition or '(default)'}; give cluster.gpus_per_node=N"
            )
        gpus = partition.gpus_per_node
    elif partition is not None and gpus > partition.gpus_per_node:
        raise ConfigError(
            f"cluster.gpus_per_node={gpus}: nodes of partition {cluster.partition or site.default_partition} have "
            f"{partition.gpus_per_node} ({site.path})"
        )
    ranks = cluster.ranks_per_node if isinstance(cluster.ranks_per_node, int) else max(1, gpus)
    cores = cluster.cpus_per_rank
    if isinstance(cores, str):
        whole = partition.cpus_per_node if partition is not None else None
        cores = max(1, whole // max(partition.gpus_per_node, ranks)) if whole and partition is not None else 1
    return Shape(cluster.nodes, gpus, ranks, cores)


def facts_on_cluster(config: RunConfig, site: Site, shape: Shape) -> Facts:
    """Returns the facts of `config` on the nodes that it asks for, not on this machine; gloo means that CPUs compute."""
    partition = site.partition(config.cluster.partition)
    gpus = 0 if config.engine.backend == "gloo" else shape.gpus_per_node
    gpu_gb = partition.gpu_memory_gb if partition is not None and gpus else None
    return Facts(
        num_gpus=gpus,
        model=_model_values(config),
        world_size=shape.ranks,
        versions=_installed(),
        gpu_bytes=int(gpu_gb * 1e9) if gpu_gb else None,
        host_bytes=bytes_of(partition.memory_per_node) if partition is not None else None,
    )


def bytes_of(text: str | None) -> int | None:
    """Returns Slurm's way to write memory, `200G`, in bytes: K, M (also without a letter), G, T of 1024; None when unclear."""
    found = re.fullmatch(r"([0-9.]+)\s*([KMGT]?)i?B?", (text or "").strip(), re.IGNORECASE)
    return int(float(found[1]) * 1024 ** " KMGT".index((found[2] or "M").upper())) if found else None


def _launched_ranks() -> int | None:
    """Returns the ranks of this job as torchrun or srun says them to each rank."""
    on_slurm = "RANK" not in os.environ and "SLURM_PROCID" in os.environ and "MASTER_ADDR" in os.environ
    text = os.environ.get("SLURM_NTASKS" if on_slurm else "WORLD_SIZE", "")
    return int(text) if text.isdigit() and int(text) > 0 else None


def _installed() -> dict[str, str]:
    found = {}
    for name in ("torch", "deepspeed"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def ranks_of(config: RunConfig, facts: Facts) -> int | None:
    """Returns how many processes share the work: the launcher's count, or this machine's; None while it is `auto`."""
    if facts.world_size is not None:
        return facts.world_size
    return config.engine.processes if isinstance(config.engine.processes, int) else None


def count_gpus() -> int:
    """Returns how many NVIDIA GPUs this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


# GiB of cards whose name in the driver does not say it (vendor's data sheets); the first part found in the name counts.
_CARDS = {
    "H200": 141,
    "H800": 80,
    "H100 NVL": 94,
    "H100": 80,
    "H20": 96,
    "L40": 48,
    "L20": 48,
    "L4": 24,
    "A6000": 48,
    "A40": 48,
    "A10": 24,
    "RTX 4090": 24,
    "RTX 3090": 24,
    "T4": 16,
}


def gpu_memory_bytes(folder: Path = Path("/proc/driver/nvidia/gpus")) -> int | None:
    """Returns the memory of this machine's smallest GPU by what the driver calls it; None when a name says nothing."""
    sizes = []
    for path in sorted(folder.glob("*/information")):
        try:
            named = re.search(r"^Model:\s*(.+)$", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        except OSError:
            return None
        sizes.append(_card_gib(named[1]) if named else None)
    known = [size for size in sizes if size is not None]
    return min(known) * 2**30 if known and len(known) == len(sizes) else None


def _card_gib(name: str) -> int | None:
    if said := re.search(r"(\d+) ?GB", name):
        return int(said[1])
    return next((size for part, size in _CARDS.items() if re.search(rf"\b{part}\b", name)), None)


def host_memory_bytes(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Returns the main memory that this process may use, None where the system does not tell.

    A job's or a container's limit counts (`memory.max` of its control group, version 2, and of those above): past it the
    kernel kills, whatever the machine has.
    """
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (OSError, ValueError):
        return None
    try:
        name = next((line[3:] for line in own.read_text(encoding="utf-8").splitlines() if line.startswith("0::")), "/")
    except OSError:
        return found[0]
    place = groups / name.strip("/")
    for folder in (place, *place.parents):
        if folder != groups and groups not in folder.parents:
            break
        with contextlib.suppress(OSError, ValueError):  # `max`: no limit
            found.append(int((folder / "memory.max").read_text(encoding="ascii")))
    return min(found)


def _model_values(config: RunConfig) -> dict[str, Any]:
    if not config.model.path:
        return dict(config.model.arch)
    path = Path(config.model.path).expanduser() / "config.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values
