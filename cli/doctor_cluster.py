"""The part of `aisc doctor` that asks Slurm: is it there, do partition and account exist, does the site file say the same?"""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.findings import Finding
from configs.errors import ConfigError, LaunchError
from configs.schema import ClusterSection
from configs.site import Site, missing_keys, parse_site, site_path
from launch.slurm_client import call, has_slurm
from launch.submit import explain_refusal

ASK_S = 10.0
UNCONFIGURED = "Could not establish a configuration source"


@dataclass(frozen=True, slots=True)
class SlurmPartition:
    """One line of sinfo."""

    state: str
    max_time: str
    nodes: int
    gpus: int


def check_cluster(cluster: ClusterSection) -> Iterator[Finding]:
    """Yields what Slurm and the site file say; one line when there is no Slurm here."""
    site, finding = look_at_site(cluster)
    yield from [finding] if finding else []
    if not has_slurm():
        is_wanted = cluster.name in ("slurm", "aisc")
        yield Finding("slurm", "none on this machine; runs go here: aisc train", not is_wanted, "log in to a node that has sbatch")
        return
    try:
        version = call(("sbatch", "--version"), timeout_s=ASK_S).strip()
        told = call(("scontrol", "ping"), timeout_s=ASK_S).strip().splitlines()[0]
        yield Finding("slurm", f"{version}, {told}", "UP" in told, "the controller is down: ask your admins, or try again later")
        partitions = read_partitions(call(("sinfo", "--noheader", "--format=%R|%a|%l|%D|%G"), timeout_s=ASK_S))
    except LaunchError as error:
        if UNCONFIGURED in str(error) and cluster.name not in ("slurm", "aisc"):
            yield Finding("slurm", "its commands are here, but no slurm.conf: this machine belongs to no cluster")
        else:
            yield Finding("slurm", str(error), False, "ask your admins, or try again later")
        return
    yield from check_partitions(cluster, site, partitions)
    yield check_account(cluster)
    yield check_request(cluster, site)


def look_at_site(cluster: ClusterSection) -> tuple[Site, Finding | None]:
    """Returns the site, an empty one when there is none or it is no good, and what to say of it."""
    path = site_path(cluster.site)
    if path is None:
        remedy = "docs/on-your-cluster.md has one to copy"
        nothing = Finding("site file", "none: cluster.site, $AISC_SITE, ~/.config/aisc/site.yaml", cluster.name != "aisc", remedy)
        return Site(), nothing if has_slurm() or cluster.name == "aisc" else None
    try:
        site = parse_site(path)
    except ConfigError as error:
        return Site(), Finding("site file", "; ".join(error.problems), False, "docs/on-your-cluster.md explains every key")
    missing = [line.removeprefix(f"{path}: ").split(" is missing")[0] for line in missing_keys(site)]
    text = f"{path}: {site.name or 'no name'}, {len(site.partitions)} partitions"
    if missing:
        return site, Finding("site file", f"{text}; missing: {', '.join(missing)}", cluster.name != "aisc", "who can tell: aisc launch cluster=aisc")
    return site, Finding("site file", f"{text}, complete")


def read_partitions(text: str) -> dict[str, SlurmPartition]:
    """Returns Slurm's partitions from `sinfo --format=%R|%a|%l|%D|%G`; lines of one partition are added up."""
    found: dict[str, SlurmPartition] = {}
    for line in text.splitlines():
        name, state, limit, nodes, gres = (part.strip() for part in line.split("|"))
        gpus = sum(int(number) for number in re.findall(r"gpu:(?:[^:,(]+:)?(\d+)", gres))
        before = found.get(name)
        found[name] = SlurmPartition(
            state, limit, int(nodes) + (before.nodes if before else 0), max(gpus, before.gpus if before else 0)
        )
    return found


def check_partitions(cluster: ClusterSection, site: Site, partitions: Mapping[str, SlurmPartition]) -> Iterator[Finding]:
    """Yields the partitions that a run would go to, and where the site file and Slurm disagree."""
    wanted = {
        "cluster.partition": cluster.partition or site.default_partition,
        "cluster.cpu_partition": cluster.cpu_partition or site.cpu_partition,
    }
    there = ", ".join(f"{name} ({part.nodes} nodes{f' x {part.gpus} GPUs' if part.gpus else ''})" for name, part in partitions.items())
    for key, name in wanted.items():
        if name is None:
            continue
        part = partitions.get(name)
        found = f"{name} ({key}): {part.state}, {part.nodes} nodes, at most {part.max_time}" if part else f"{name} ({key}): no such partition"
        yield Finding("partition", found, part is not None and part.state == "up", f"there are: {there}")
    if not any(wanted.values()):
        yield Finding("partitions", there)
    for name, stated in site.partitions.items():
        part = partitions.get(name)
        if part is None:
            yield Finding("site file", f"partitions.{name}: Slurm has none of that name", False, f"there are: {there}")
        elif stated.gpus_per_node != part.gpus:
            said = f"partitions.{name}.gpus_per_node={stated.gpus_per_node}: Slurm says {part.gpus}"
            yield Finding("site file", said, False, "correct the site file")


def check_account(cluster: ClusterSection) -> Finding:
    """Returns the accounts of this user; a cluster without an accounting database has none to ask for."""
    try:
        text = call(("sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={getpass.getuser()}", "format=account,partition,qos"), timeout_s=ASK_S)
    except LaunchError as error:
        return Finding("account", f"not checked: {error}")
    accounts = sorted({line.split("|")[0] for line in text.splitlines() if line.strip()})
    if not accounts:
        return Finding("account", f"none for {getpass.getuser()}", cluster.account is None, "ask your admins for an account")
    listed = ", ".join(accounts)
    if cluster.account is None:
        return Finding("account", f"yours: {listed}")
    return Finding("account", f"{cluster.account}; yours: {listed}", cluster.account in accounts, "cluster.account=NAME, one of yours")


def check_request(cluster: ClusterSection, site: Site) -> Finding:
    """Returns whether Slurm would take a job of a minute with this partition, account, QOS and reservation."""
    script = "\n".join(["#!/bin/bash", *(f"#SBATCH {option}" for option in place_options(cluster, site)), "#SBATCH --time=1", "true", ""])
    try:
        call(("sbatch", "--test-only"), given=script, timeout_s=ASK_S)
    except LaunchError as error:
        return Finding("a job", str(error), False, explain_refusal(str(error)).removeprefix(f"{error}; "))
    return Finding("a job", " ".join(["sbatch would take it", *place_options(cluster, site)]))


def place_options(cluster: ClusterSection, site: Site) -> list[str]:
    """Returns the options of sbatch and srun that say where and on whose account."""
    options = {
        "partition": cluster.partition or site.default_partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "reservation": cluster.reservation,
        "constraint": cluster.constraint,
    }
    return [f"--{name}={value}" for name, value in options.items() if value is not None]


def folders_of(cluster: ClusterSection, runs: Path, stores: Path) -> dict[str, Path]:
    """Returns the folders that nodes must see, or have, by name."""
    return {"runs": runs, "stores": stores, **({"stage_to": Path(cluster.stage_to)} if cluster.stage_to else {})}
