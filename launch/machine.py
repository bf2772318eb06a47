"""What a machine is, as plain facts, and where several machines differ: login node, compute nodes, a saved one. Torch-free.

On compute nodes `aisc doctor --facts` prints one short line of JSON for each fact: srun keeps lines of several nodes whole.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.atomic import sha256_file
from configs.errors import LaunchError
from configs.facts import count_gpus, host_memory_bytes

Facts = dict[str, str]
LIBRARIES = ("torch", "transformers", "accelerate", "deepspeed", "peft", "datasets", "tokenizers", "safetensors", "numpy", "omegaconf")
NOT_THERE = "not there"
# A difference in these is a fault, with what to do; in all others it is only told.
FAULTS = {
    "python": "one environment on storage that all nodes see, or its activation in cluster.setup",
    "aisc": "one installation on storage that all nodes see",
    "library": "one environment on storage that all nodes see, or its activation in cluster.setup",
    "runs": "a folder that all nodes see: run.dir=FOLDER, or storage.runs in the site file",
    "stores": "a folder that all nodes see: data.store=FOLDER or $AISC_STORES",
    "site file": "one site file on storage that all nodes see: cluster.site=FILE or $AISC_SITE",
    "answer": "aisc does not start there; what it said is above",
}
# srun passes lines on whole up to 1,024 bytes.
LONGEST_VALUE = 600


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact with more than one value: the machines by value, and what to do when it is a fault."""

    name: str
    values: dict[str, list[str]]
    remedy: str | None


def machine_name() -> str:
    """Returns Slurm's name of this node, else the host's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def facts_here(folders: Mapping[str, Path], site: Path | None) -> Facts:
    """Returns the facts of this machine.

    Args:
        folders: by their names in the list (`runs`, `stores`, `stage_to`); a probe file in it tells that it is the same one.
        site: the site file.
    """
    facts = {
        "python": f"{platform.python_version()} {sys.executable}",
        "aisc": f"{_version('aisc-finetune')} {Path(__file__).resolve().parent.parent}",
        **{f"library {name}": _version(name) for name in LIBRARIES},
        "site file": "none" if site is None else f"{site} {sha256_file(site)[:12]}" if site.is_file() else f"{site} {NOT_THERE}",
        **{name: _folder(path) for name, path in folders.items()},
        "system": f"{platform.system()} {platform.release()} {platform.libc_ver()[1]}",
        "cpus": str(len(os.sched_getaffinity(0))),
        "memory": _gib(host_memory_bytes()),
        "gpus": _gpus(),
        "driver": _driver(),
        "/dev/shm": _gib(shutil.disk_usage("/dev/shm").total) if Path("/dev/shm").is_dir() else "none",
        "temporary": f"{os.environ.get('TMPDIR', '/tmp')}",
        "open files": _limit(resource.RLIMIT_NOFILE),
        "locked memory": _limit(resource.RLIMIT_MEMLOCK),
    }
    return {name: value[:LONGEST_VALUE] for name, value in facts.items()}


def probe_name(folder: Path) -> Path:
    """Returns the file by which nodes recognise `folder` as the one of the login node."""
    return folder / f".aisc-doctor-{socket.gethostname()}-{os.getpid()}"


def print_lines(facts: Facts) -> str:
    """Returns the facts as lines of JSON, [machine, fact, value]."""
    return "\n".join(json.dumps([machine_name(), name, value], ensure_ascii=False) for name, value in facts.items()) + "\n"


def read_lines(text: str) -> dict[str, Facts]:
    """Returns the facts by machine from what several machines printed; other lines are passed over."""
    found: dict[str, Facts] = {}
    for line in text.splitlines():
        if not line.startswith('["'):
            continue
        try:
            machine, name, value = json.loads(line)
        except ValueError:
            continue
        found.setdefault(str(machine), {})[str(name)] = str(value)
    return found


def differences(machines: Mapping[str, Facts]) -> list[Difference]:
    """Returns the facts that are not the same on all machines, faults first; what a machine did not say is no difference."""
    names = dict.fromkeys(name for facts in machines.values() for name in facts)
    found = []
    for name in names:
        values: dict[str, list[str]] = {}
        for machine, facts in machines.items():
            if name in facts:
                values.setdefault(facts[name], []).append(machine)
        if len(values) > 1:
            found.append(Difference(name, values, FAULTS.get("library" if name.startswith("library ") else name)))
    return sorted(found, key=lambda difference: difference.remedy is None)


def ask_nodes(options: Sequence[str], lines: Sequence[str], *, wait_s: int) -> tuple[dict[str, Facts], str]:
    """Runs shell `lines` once on each node that srun gives; returns the facts by node, and what went to stderr.

    Args:
        options: of srun: how many nodes, partition, account.
        lines: setting up, then the command that prints facts.
        wait_s: longest wait for nodes.

    Raises:
        LaunchError: no srun here, no node in that time, or none that said anything.
    """
    name = """printf '["%s", "answer", "yes"]\\n' "${SLURMD_NODENAME:-$(hostname)}\""""
    command = ["srun", *options, "--ntasks-per-node=1", "--time=5", f"--immediate={wait_s}", "--job-name=aisc-doctor"]
    try:
        done = subprocess.run(
            [*command, "bash", "-c", "\n".join([name, *lines])],
            capture_output=True,
            text=True,
            timeout=wait_s + 120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise LaunchError("srun: no Slurm on this machine; log in to a node that has it") from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"srun: nothing came back within {wait_s + 120} s") from error
    machines = read_lines(done.stdout)
    said = re.sub(r"^srun: error: \S+: tasks? .*: Exited with exit code.*\n?", "", done.stderr, flags=re.MULTILINE).strip()
    if not machines:
        words = " ".join(said.replace("srun: error: ", "").split()) or f"exit code {done.returncode}"
        raise LaunchError(f"srun refused: {words}" + ("; --wait SECONDS waits longer" if "busy" in words else ""))
    for facts in machines.values():
        if "python" not in facts:
            facts["answer"] = "aisc did not start"
    return dict(sorted(machines.items())), said


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _folder(path: Path) -> str:
    """Returns whether the folder is there and can be written."""
    if not path.is_dir():
        return f"{path} {NOT_THERE}"
    return f"{path} {'writable' if os.access(path, os.W_OK) else 'not writable'}"


def with_probes(facts: Facts, probes: Mapping[str, Path]) -> Facts:
    """Returns the facts, a folder without its probe file being another one that only has the same name."""
    absent: Iterable[str] = [name for name, probe in probes.items() if not probe.exists() and NOT_THERE not in facts[name]]
    return {**facts, **{name: f"{probes[name].parent} another folder of that name" for name in absent}}


def _gib(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 2**30:,.0f} GiB"


def _gpus() -> str:
    """Returns the number of GPUs and their names as the driver has them."""
    count = count_gpus()
    names = set()
    for path in Path("/proc/driver/nvidia/gpus").glob("*/information"):
        if found := re.search(r"^Model:\s*(.+)$", path.read_text(errors="replace"), re.MULTILINE):
            names.add(found[1].strip())
    return f"{count} {', '.join(sorted(names))}".strip() if count else "none"


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    found = re.search(r"Module\s+([\d.]+)", path.read_text(errors="replace")) if path.is_file() else None
    return found[1] if found else "none"


def _limit(which: int) -> str:
    soft = resource.getrlimit(which)[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
