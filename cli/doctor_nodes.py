"""`aisc doctor --nodes N`, `--save`, `--compare`: what compute nodes, or another machine, have that this one has not."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from cli.doctor_cluster import folders_of, place_options
from configs import atomic
from configs.errors import LaunchError, UserError
from configs.runfolder import read_json, runs_dir
from configs.schema import RunConfig
from configs.site import Site, read_site, site_path
from launch.machine import (
    Difference,
    Facts,
    ask_nodes,
    differences,
    facts_here,
    machine_name,
    print_lines,
    probe_name,
    with_probes,
)
from launch.submit import aisc_command, explain_refusal

if TYPE_CHECKING:
    from rich.console import Console


def folders(config: RunConfig, site: Site) -> dict[str, Path]:
    """Returns the folders that this configuration writes to, absolute, by name."""
    runs = runs_dir(config.run.dir or site.storage.runs).expanduser().absolute()
    stores = Path(config.data.store or os.environ.get("AISC_STORES") or "stores").expanduser().absolute()
    return folders_of(config.cluster, runs, stores)


def print_facts(text: str) -> int:
    """Prints this node's facts; for srun. `text` is JSON: folders, probes, site file, as the login node has them."""
    asked = json.loads(text)
    paths = {name: Path(path) for name, path in asked["folders"].items()}
    probes = {name: Path(path) for name, path in asked["probes"].items()}
    facts = facts_here(paths, Path(asked["site"]) if asked["site"] else None)
    print(print_lines(with_probes(facts, probes)), end="", flush=True)
    return 0


def save(screen: Console, path: Path, config: RunConfig) -> int:
    """Writes this machine's facts to `path`."""
    site = read_site(config.cluster)
    atomic.write_json(path, {machine_name(): facts_here(folders(config, site), site.path)})
    screen.print(f"{machine_name()} saved to {path}   there: aisc doctor --compare {path}", soft_wrap=True, markup=False)
    return 0


def compare(screen: Console, path: Path, config: RunConfig) -> int:
    """Compares this machine with the saved one; returns 1 when something differs that must not."""
    saved = read_json(path)
    if saved is None or not all(isinstance(facts, dict) for facts in saved.values()):
        raise UserError(f"{path}: expected a file that aisc doctor --save wrote")
    site = read_site(config.cluster)
    here = facts_here(folders(config, site), site.path)
    return show(screen, {**saved, f"{machine_name()} (here)" if machine_name() in saved else machine_name(): here})


def look_at_nodes(screen: Console, nodes: int, wait_s: int, config: RunConfig) -> int:
    """Compares this machine with `nodes` compute nodes; returns 1 when something differs that must not."""
    cluster, site = config.cluster, read_site(config.cluster)
    partition = site.partition(cluster.partition)
    gpus = cluster.gpus_per_node if isinstance(cluster.gpus_per_node, int) else min(1, partition.gpus_per_node if partition else 0)
    wanted = folders(config, site)
    options = [f"--nodes={nodes}", f"--ntasks={nodes}", *place_options(cluster, site), *([f"--gpus-per-node={gpus}"] if gpus else [])]
    screen.print(f"asking {nodes} {'node' if nodes == 1 else 'nodes'}: srun {shlex.join(options)}", soft_wrap=True, markup=False)
    shared = {name: folder for name, folder in wanted.items() if name != "stage_to"}  # that one is each node's own
    with probes_in(shared) as probes:
        here = with_probes(facts_here(wanted, site_path(cluster.site)), probes)
        asked = {
            "folders": {name: str(path) for name, path in wanted.items()},
            "probes": {name: str(path) for name, path in probes.items()},
            "site": str(site.path.absolute()) if site.path else None,
        }
        call = shlex.join([*aisc_command(), "doctor", "--facts", json.dumps(asked)])
        try:
            there, said = ask_nodes(options, [*site.setup, *cluster.setup, f"exec {call}"], wait_s=wait_s)
        except LaunchError as error:
            raise LaunchError(explain_refusal(str(error))) from error
    if said:
        screen.print(said, soft_wrap=True, markup=False)
    if len(there) < nodes:
        raise LaunchError(f"{len(there)} of {nodes} nodes answered: {', '.join(there)}")
    return show(screen, {f"{machine_name()} (here)": {**here, "answer": "yes"}, **there})


@contextlib.contextmanager
def probes_in(wanted: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Yields a new file in each folder that exists, by which a node knows that it sees the same one; removed at the end."""
    made: dict[str, Path] = {}
    try:
        for name, folder in wanted.items():
            if folder.is_dir() and os.access(folder, os.W_OK):
                made[name] = probe_name(folder)
                made[name].touch(mode=0o644)
        yield made
    finally:
        for path in made.values():
            path.unlink(missing_ok=True)


def show(screen: Console, machines: Mapping[str, Facts]) -> int:
    """Prints where machines differ; 1 when something differs that must not."""
    found = differences(machines)
    faults = [difference for difference in found if difference.remedy is not None]
    for difference in found:
        show_difference(screen, difference)
    for remedy in dict.fromkeys(difference.remedy for difference in faults):
        about = ", ".join(difference.name for difference in faults if difference.remedy == remedy)
        screen.print(f"\n  {about}:\n    {remedy}", soft_wrap=True, markup=False)
    names = ", ".join(machines)
    if faults:
        screen.print(f"\n{len(faults)} that must not differ   ({names})", soft_wrap=True, markup=False)
    else:
        screen.print(f"\nready: nothing differs that must not   ({names})", soft_wrap=True, markup=False)
    return 1 if faults else 0


def show_difference(screen: Console, difference: Difference) -> None:
    """Prints each value with the machines that have it."""
    mark = "may" if difference.remedy is None else "NOT"
    style = "" if difference.remedy is None else "bold red"
    for number, (value, machines) in enumerate(difference.values.items()):
        head = f"{mark}  {difference.name}" if number == 0 else ""
        screen.print(Text(f"  {head:<25} {value}   {', '.join(machines)}", style=style), soft_wrap=True)
