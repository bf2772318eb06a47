"""What one rank finds on its own node: devices, matrix rate, memory, disks, versions, the card's own complaints.

Every probe is bounded by its size, takes well under a second on a sound node and returns plain values for JSON. Rates are
the best of several short bursts: on a machine that is shared, a burst that nobody interrupted says what the node can do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from configs import atomic

PACKAGES = ("cli", "configs", "data_pipelines", "launch", "train")
ROOT = Path(__file__).resolve().parents[1]
# Square matrices: large enough to fill the device, small enough for a burst of a millisecond or so on a CPU core.
MATRIX_DIM = {"cpu": 256, "cuda": 8192}
MATRIX_SECONDS = 0.4
LEAST_BURSTS = 5
DISK_PROBE_BYTES = 8 << 20
DISK_TRIES = 4
_SMI_FIELDS = (
    "index",
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "ecc.errors.uncorrected.volatile.total",
    "clocks_throttle_reasons.hw_slowdown",
)


def devices(kind: str) -> dict[str, Any]:
    """Returns how many devices of `kind` (cpu, cuda) this rank sees, and their names."""
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return {"kind": "GPU", "count": count, "names": [torch.cuda.get_device_name(i) for i in range(count)]}
    return {"kind": "CPU", "count": os.cpu_count() or 1, "names": [platform.machine()]}


def matrix_tflops(device: torch.device) -> tuple[float, float]:
    """Returns the best rate of a matrix product in 10^12 operations per second, and the median: bf16 on a GPU, fp32 on a CPU."""
    dim = MATRIX_DIM[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.ones(dim, dim, dtype=dtype, device=device) for _ in range(2))
    bursts: list[float] = []
    end = time.perf_counter() + MATRIX_SECONDS
    while len(bursts) < LEAST_BURSTS or time.perf_counter() < end:
        _wait(device)
        begin = time.perf_counter()
        torch.mm(left, right)
        _wait(device)
        bursts.append(time.perf_counter() - begin)
    bursts = bursts[1:]  # the first one loads libraries and chooses kernels
    return 2.0 * dim**3 / min(bursts) / 1e12, 2.0 * dim**3 / statistics.median(bursts) / 1e12


def memory(device: torch.device) -> dict[str, float]:
    """Returns the share of the device's memory that is free (0 to 1), and GB of it; on a CPU that of the node."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
    else:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    return {"free_fraction": free / total, "free_gb": free / 1e9}


def disk(folder: Path) -> dict[str, Any]:
    """Returns free GB of `folder` and the shortest time in ms of writing a small file there down to the disk.

    `error` is there when it cannot be written to; `full` when that is for lack of room.
    """
    found: dict[str, Any] = {"path": str(folder)}
    probe = atomic.temporary_name(folder / "node-check")
    try:
        usage = os.statvfs(folder)
        found["free_gb"] = usage.f_bavail * usage.f_frsize / 1e9
        found["latency_ms"] = min(_write_ms(probe, 4096) for _ in range(DISK_TRIES))
        # Room is believed when something lies in it: quotas are not seen by statvfs.
        _write_ms(probe, DISK_PROBE_BYTES, flush=False)
    except OSError as error:
        found["error"] = error.strerror or str(error)
        found["full"] = error.errno in (errno.ENOSPC, errno.EDQUOT)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return found


def versions() -> dict[str, str]:
    """Returns what computes here: Python, every library that this distribution asks for, torch's build, our own code."""
    found = {"python": platform.python_version(), "our code": _code_hash()}
    found["torch build"] = f"{torch.__version__} cuda {torch.version.cuda}"
    try:
        required = importlib.metadata.requires("aisc-finetune") or []
    except importlib.metadata.PackageNotFoundError:
        required = []
    for requirement in required:
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        if match and "extra ==" not in requirement:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[match.group()] = importlib.metadata.version(match.group())
    return found


def card(device: torch.device) -> dict[str, Any]:
    """Returns what nvidia-smi says of this rank's card; empty without a GPU or when it cannot be asked."""
    if device.type != "cuda" or shutil.which("nvidia-smi") is None:
        return {}
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", f"--id={uuid}", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return read_card(text)


def read_card(text: str) -> dict[str, Any]:
    """Returns the values of one line of nvidia-smi's table; a value that the card does not report is left out."""
    values = dict(zip(_SMI_FIELDS, (word.strip() for word in text.strip().split(",")), strict=False))
    found: dict[str, Any] = {}
    for name, key in (("index", "index"), ("clocks.sm", "clock_mhz"), ("clocks.max.sm", "max_clock_mhz")):
        if values.get(name, "").isdigit():
            found[key] = int(values[name])
    if values.get("ecc.errors.uncorrected.volatile.total", "").isdigit():
        found["uncorrected_errors"] = int(values["ecc.errors.uncorrected.volatile.total"])
    if values.get("driver_version", "")[:1].isdigit():
        found["driver"] = values["driver_version"]
    if values.get("clocks_throttle_reasons.hw_slowdown") in ("Active", "Not Active"):
        found["slowed_by_hardware"] = values["clocks_throttle_reasons.hw_slowdown"] == "Active"
    return found


def run_signature(run: Path) -> str:
    """Returns a hash of the frozen configuration: every node must see the same run folder."""
    return hashlib.sha256((run / "launch.yaml").read_bytes()).hexdigest()[:16]


def folders(run: Path, node_local: str | None, environment: Mapping[str, str]) -> dict[str, Path]:
    """Returns the folders that a run writes to, by their names in the report."""
    found = {"run": run / "jobs", "temporary": Path(environment.get("TMPDIR") or "/tmp")}
    if node_local:
        found["local"] = Path(os.path.expandvars(node_local)).expanduser()
    return found


def _write_ms(path: Path, size: int, *, flush: bool = True) -> float:
    begin = time.perf_counter()
    with path.open("wb") as file:
        file.write(bytes(size))
        file.flush()
        if flush:
            os.fsync(file.fileno())
    return 1000 * (time.perf_counter() - begin)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _code_hash() -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]
