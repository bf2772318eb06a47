"""A benchmark's own module on several processes of this machine, as a launcher starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

from benchmarks.evidence import ROOT


def run_ranks(module: str, world: int, *arguments: str) -> list[Any]:
    """Returns the JSON that each of `world` processes of `python -m module arguments` prints last, in rank order.

    Raises:
        SystemExit: one of them failed.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    processes = []
    for rank in range(world):
        values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, **{key: str(value) for key, value in values.items()}, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, *arguments]
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    codes = [process.returncode for process in processes]
    if any(codes):
        raise SystemExit(f"{module}: exit codes {codes}")
    return [json.loads(output.splitlines()[-1]) for output in outputs]
