"""`aisc doctor`: is this machine, this node, this cluster ready? Each check says what it found and, when it is wrong, what to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from cli.findings import Finding
from cli.screens import console, split_values
from configs import compose
from configs.errors import UserError
from configs.facts import count_gpus
from configs.runfolder import runs_dir
from configs.schema import RunConfig

if TYPE_CHECKING:
    from rich.console import Console

DISTRIBUTION = "aisc-finetune"
TOP_LEVEL = ("cli", "configs", "data_pipelines", "launch", "train")
ROOT = Path(__file__).resolve().parent.parent
MIN_FREE_BYTES = 10 * 2**30
MIN_SHARED_BYTES = 1 * 2**30
# Longest wait for compute nodes, in seconds.
WAIT_S = 120


def main(arguments: list[str]) -> int:
    """Runs the verb; 1 when something is not ready."""
    options, words = split_values(arguments, values=("--nodes", "--wait", "--save", "--compare", "--facts"))
    if "--facts" in options:
        from cli.doctor_nodes import print_facts

        return print_facts(options["--facts"])
    config = compose.load(words).config
    screen = console()
    if options:
        return compare_machines(screen, options, config)
    from cli.doctor_cluster import check_cluster

    findings = [*(finding for check in CHECKS for finding in check()), *check_cluster(config.cluster)]
    return show(screen, findings)


def compare_machines(screen: Console, options: dict[str, str], config: RunConfig) -> int:
    """Does what `--nodes`, `--save` or `--compare` asks for."""
    from cli import doctor_nodes

    if len(options.keys() & {"--nodes", "--save", "--compare"}) != 1:
        raise UserError("aisc doctor: give one of --nodes N, --save FILE, --compare FILE")
    if "--save" in options:
        return doctor_nodes.save(screen, Path(options["--save"]), config)
    if "--compare" in options:
        return doctor_nodes.compare(screen, Path(options["--compare"]), config)
    nodes, wait_s = options["--nodes"], options.get("--wait", str(WAIT_S))
    for name, text in (("--nodes", nodes), ("--wait", wait_s)):
        if not text.isdigit() or int(text) < 1:
            raise UserError(f"{name} {text}: expected 1 or more")
    return doctor_nodes.look_at_nodes(screen, int(nodes), int(wait_s), config)


def show(screen: Console, findings: list[Finding]) -> int:
    """Prints the findings; 1 when something is not ready."""
    for finding in findings:
        mark = "ok " if finding.is_ok else "NOT"
        screen.print(Text(f"  {mark}  {finding.what:<12} {finding.found}", style="" if finding.is_ok else "bold red"), soft_wrap=True)
        if not finding.is_ok:
            screen.print(Text(f"       {'':<12} {finding.remedy}"), soft_wrap=True)
    bad = sum(not finding.is_ok for finding in findings)
    screen.print(f"\n{'ready' if not bad else f'{bad} not ready'}   (aisc-finetune at {ROOT})", soft_wrap=True, markup=False)
    return 1 if bad else 0


def check_python() -> Iterable[Finding]:
    """Python's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", version, (3, 11) <= sys.version_info < (3, 14), "install Python 3.11 to 3.13")


def check_libraries() -> Iterable[Finding]:
    """Every dependency against the range that we declare."""
    from packaging.requirements import Requirement

    missing = []
    found = []
    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{requirement.name} is missing")
            continue
        found.append(f"{requirement.name} {version}")
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{requirement.name} {version}, expected {requirement.specifier}")
    if missing:
        yield Finding("libraries", "; ".join(missing), False, f"pip install '{DISTRIBUTION}' again in a fresh environment")
    else:
        yield Finding("libraries", f"{len(found)} in their ranges: {', '.join(found[:7])}")


def check_names() -> Iterable[Finding]:
    """Other distributions that own one of our top-level names, and folders that hide them."""
    owners = importlib.metadata.packages_distributions()
    others = {
        name: sorted({owner for owner in owners.get(name, []) if owner.lower().replace("_", "-") != DISTRIBUTION})
        for name in TOP_LEVEL
    }
    taken = [f"{name} belongs to {', '.join(owner)} too" for name, owner in others.items() if owner]
    if taken:
        remedy = "pip uninstall it, or use a virtual environment of its own: whichever was installed last has won"
        yield Finding("names", "; ".join(taken), False, remedy)
        return
    hidden = [
        f"{name} is {origin}"
        for name in TOP_LEVEL
        if (origin := imported_from(name)) is not None and ROOT not in Path(origin).resolve().parents
    ]
    yield Finding("names", "; ".join(hidden) or f"{', '.join(TOP_LEVEL)} are ours alone", not hidden, "unset PYTHONPATH")


def imported_from(name: str) -> str | None:
    """Returns the file that `import name` would read."""
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin


def check_gpus() -> Iterable[Finding]:
    """GPUs seen by the driver against those that torch can use."""
    import torch

    seen = count_gpus()
    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not seen and not usable:
        yield Finding("gpus", f"none; runs use the CPU in fp32 (torch {torch.__version__})")
        return
    names = ", ".join(sorted({torch.cuda.get_device_name(i) for i in range(usable)}))
    remedy = f"torch {torch.__version__} does not match the driver: install its CUDA build (constraints/cuda.txt)"
    yield Finding("gpus", f"{usable} of {seen} usable: {names}", usable >= seen, remedy)


def check_folders() -> Iterable[Finding]:
    """Folders that runs write to: writable, with room."""
    for what, folder in (("runs", runs_dir(None)), ("stores", Path(os.environ.get("AISC_STORES") or "stores"))):
        parent = folder.absolute()
        while not parent.exists():
            parent = parent.parent
        free = shutil.disk_usage(parent).free
        if not os.access(parent, os.W_OK):
            yield Finding(what, f"{folder}: cannot be written", False, f"set $AISC_{what.upper()} to a folder of yours")
        else:
            text = f"{folder.absolute()}: {free / 2**30:,.0f} GiB free"
            yield Finding(what, text, free >= MIN_FREE_BYTES, f"set $AISC_{what.upper()} to a disk with more room")


def check_limits() -> Iterable[Finding]:
    """Shared memory and open files."""
    import resource

    shared = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    yield Finding("/dev/shm", f"{shared / 2**30:.1f} GiB", shared >= MIN_SHARED_BYTES or not count_gpus(), "NCCL needs 1 GiB or more")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield Finding("open files", f"{files:,}", files >= 1024, "ulimit -n 4096")


CHECKS: tuple[Callable[[], Iterable[Finding]], ...] = (
    check_python,
    check_libraries,
    check_names,
    check_gpus,
    check_folders,
    check_limits,
)
