"""The site file: what a centre is. Nothing is invented here; what a figure needs and the file lacks is asked for by name.

    name: AISC
    source: the centre's user guide, 2026-10-01      # who said so
    default_partition: gpu
    partitions:
      gpu: {gpu: H800, gpu_memory_gb: 80, gpus_per_node: 8, cpus_per_node: 128, memory_per_node: 2000G,
            nodes: 16, max_time: 3-00:00:00, price_per_gpu_hour: 25.0}
      cpu: {cpus_per_node: 64, memory_per_node: 500G, nodes: 8, price_per_node_hour: 4.0}
    cpu_partition: cpu
    network: {interconnect_gb_per_s: 50, environment: {NCCL_SOCKET_IFNAME: ib0}}
    storage: {runs: /lustre/runs, shared: [/lustre], node_local: /tmp}
    price: {currency: HK$, subsidy: 0.7, source: the centre's letter of 2026-10-01}
    projects: {oncology: {account: onc, max_gpu_hours: 1240, subsidy: 0.9}}
    bounds: {matmul_tflops: 500, all_reduce_gb_per_s: 20, clock_skew_s: 1, free_memory_fraction: 0.95}
    setup: [module load apptainer]
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.durations import parse_seconds
from configs.errors import ConfigError
from configs.frontdoor import load_yaml
from configs.schema import ClusterSection
from configs.values import BadValue, coerce, fields_of, hints_of, mapping_of, nearest, show

PLACES = ("~/.config/aisc/site.yaml", "/etc/aisc/site.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition. Prices are list prices in the site's currency; None: not stated."""

    gpu: str | None = None
    gpu_memory_gb: float | None = None
    gpus_per_node: int = 0
    cpus_per_node: int | None = None
    memory_per_node: str | None = None
    nodes: int | None = None
    max_time: str | None = None
    price_per_gpu_hour: float | None = None
    price_per_node_hour: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Between nodes: bytes per second of one node's links in GB/s, and what NCCL has to be told."""

    interconnect_gb_per_s: float | None = None
    within_node_gb_per_s: float | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Folders: where runs go, which ones every node sees (none stated: not checked), which one is each node's own."""

    runs: str | None = None
    shared: list[str] = field(default_factory=list)
    node_local: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Currency, share of the list price that the subsidy pays (0 to 1), and who said so."""

    currency: str = "HK$"
    subsidy: float | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One project's account, budget in GPU-hours and subsidy; None: the site's."""

    account: str | None = None
    max_gpu_hours: float | None = None
    subsidy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a healthy node reaches at least (rates) or at most (skew, latency); None: only compared with its peers.

    peer_ratio: a node below this share of the median of its peers is named; peer_ratio 0.6 finds a link at half speed.
    arrival_s: longest wait of the pre-flight for all ranks; more where a cold start of Python takes long.
    """

    matmul_tflops: float | None = None
    pairwise_gb_per_s: float | None = None
    all_reduce_gb_per_s: float | None = None
    free_memory_fraction: float | None = None
    disk_free_gb: float | None = None
    disk_latency_ms: float | None = None
    clock_skew_s: float = 2.0
    peer_ratio: float = 0.6
    arrival_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A centre; `path` is None when there is no site file."""

    path: Path | None = None
    name: str | None = None
    source: str | None = None
    default_partition: str | None = None
    cpu_partition: str | None = None
    partitions: dict[str, Partition] = field(default_factory=dict)
    network: Network = field(default_factory=Network)
    storage: Storage = field(default_factory=Storage)
    price: Price = field(default_factory=Price)
    projects: dict[str, Project] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=Bounds)
    setup: list[str] = field(default_factory=list)

    def partition(self, name: str | None) -> Partition | None:
        """Returns the facts of partition `name`, or of the default one; None when the file says nothing of it."""
        return self.partitions.get(name or self.default_partition or "")

    def subsidy(self, project: str | None) -> float | None:
        """Returns the share of the list price that is paid for `project`, 0 to 1; None: not stated."""
        own = self.projects.get(project or "", Project()).subsidy
        return self.price.subsidy if own is None else own


# What `cluster=aisc` cannot do without, with who can tell.
REQUIRED = {
    "default_partition": "the partition that training goes to: sinfo -s",
    "partitions": "at least one, with its GPUs: sinfo -N -l; scontrol show node",
    "storage.runs": "the shared folder for runs: the centre's user guide",
    "price.subsidy": "the share of the list price that your grant pays, 0 to 1: your letter of award",
    "price.source": "where these prices come from and of which day",
}
REQUIRED_OF_GPUS = {
    "gpu": "the card's name: nvidia-smi -L on a node",
    "gpu_memory_gb": "memory of one card in GB (10^9 bytes)",
    "price_per_gpu_hour": "list price of one GPU for one hour: the centre's price list",
}


def read_site(cluster: ClusterSection) -> Site:
    """Returns the site of `cluster`; an empty one when no file is named or found and none is needed.

    Raises:
        ConfigError: with every problem of the file, or where it was looked for.
    """
    path = site_path(cluster.site)
    if path is None:
        if cluster.name == "aisc":
            places = ", ".join(("cluster.site", "$AISC_SITE", *PLACES))
            raise ConfigError(f"cluster=aisc: no site file; looked at {places}. docs/on-your-cluster.md has one to copy")
        return Site()
    site = parse_site(path)
    if cluster.name == "aisc" and (missing := missing_keys(site)):
        raise ConfigError(missing)
    return site


def site_path(given: str | None) -> Path | None:
    """Returns the site file that is named, or the first that exists; None without any."""
    if named := given or os.environ.get("AISC_SITE"):
        return Path(named).expanduser()
    return next((path for place in PLACES if (path := Path(place).expanduser()).is_file()), None)


def parse_site(path: Path) -> Site:
    """Reads a site file.

    Raises:
        ConfigError: it cannot be read, or has keys or values that mean nothing here; every problem, with its line.
    """
    loaded = load_yaml(path)
    if isinstance(loaded, str):
        raise ConfigError(loaded)
    values, lines = loaded
    problems: list[str] = []
    site: Site = _read(Site, values, (), path, lines, problems)
    problems += _ranges(site, path)
    if problems:
        raise ConfigError(problems)
    return dataclasses.replace(site, path=path)


def missing_keys(site: Site) -> list[str]:
    """Returns one line for each key that `cluster=aisc` needs and the file lacks, with who can tell."""
    found = []
    for key, hint in REQUIRED.items():
        value: Any = site
        for part in key.split("."):
            value = getattr(value, part)
        if value is None or value == {}:
            found.append(f"{site.path}: {key} is missing: {hint}")
    for name, partition in site.partitions.items():
        if partition.gpus_per_node:
            found += [
                f"{site.path}: partitions.{name}.{key} is missing: {hint}"
                for key, hint in REQUIRED_OF_GPUS.items()
                if getattr(partition, key) is None
            ]
    return found


def _read(
    schema: type, values: Mapping[Any, Any], at: tuple[str, ...], path: Path, lines: Mapping[tuple[str, ...], int], problems: list[str]
) -> Any:
    """Returns `values` as a `schema`; what does not fit goes to `problems`."""
    fields, hints, taken = fields_of(schema), hints_of(schema), {}
    for name, value in values.items():
        key = (*at, str(name))
        where = f"{path}:{lines.get(key, 1)}: {'.'.join(key)}"
        if name not in fields or name == "path":
            close = nearest(str(name), fields)
            problems.append(f"{where}: no such key" + (f"; did you mean {close}?" if close else f"; expected {', '.join(fields)}"))
            continue
        hint = hints[str(name)]
        element = mapping_of(hint)
        inner = element.__args__[1] if element is not None else None
        if hasattr(hint, "__dataclass_fields__") or hasattr(inner, "__dataclass_fields__"):
            if not isinstance(value, dict):
                problems.append(f"{where}={show(value)}: expected a mapping")
            elif inner is None:
                taken[name] = _read(hint, value, key, path, lines, problems)
            else:
                taken[name] = _read_all(inner, value, key, path, lines, problems)
            continue
        try:
            taken[name] = coerce(value, hint)
        except BadValue as error:
            problems.append(f"{where}={show(value)}: {error}")
    return schema(**taken)


def _read_all(
    schema: type, values: Mapping[Any, Any], at: tuple[str, ...], path: Path, lines: Mapping[tuple[str, ...], int], problems: list[str]
) -> dict[str, Any]:
    found = {}
    for name, inner in values.items():
        if isinstance(inner, dict):
            found[str(name)] = _read(schema, inner, (*at, str(name)), path, lines, problems)
        else:
            problems.append(f"{path}:{lines.get((*at, str(name)), 1)}: {'.'.join((*at, str(name)))}={show(inner)}: expected a mapping")
    return found


def _ranges(site: Site, path: Path) -> list[str]:
    found = []
    for key, share in (("price", site.price.subsidy), *((f"projects.{name}", p.subsidy) for name, p in site.projects.items())):
        if share is not None and not 0 <= share <= 1:
            found.append(f"{path}: {key}.subsidy={share:g}: expected a share from 0 to 1, such as 0.7")
    for name, partition in site.partitions.items():
        if partition.max_time is not None:
            try:
                parse_seconds(partition.max_time)
            except ValueError as error:
                found.append(f"{path}: partitions.{name}.max_time={partition.max_time}: {error}")
    for key in ("default_partition", "cpu_partition"):
        name = getattr(site, key)
        if name is not None and site.partitions and name not in site.partitions:
            found.append(f"{path}: {key}={name}: not among partitions: {', '.join(site.partitions)}")
    return found
