"""Packages of the distribution that some tests need: their installation, and what is said where they cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence


class NotCovered(RuntimeError):
    """These tests cannot run here; the message says what is missing and what is not tested therefore."""


def install(packages: Sequence[str], words: str) -> None:
    """Installs packages through apt-get, as root.

    Raises:
        NotCovered: no apt-get, or it failed; beginning with `words`.
    """
    if shutil.which("apt-get") is None:
        raise NotCovered(f"{words}: no apt-get to install {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (("update",), ("install", "--yes", "--no-install-recommends", *packages)):
        command = ["apt-get", "--quiet=2", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise NotCovered(f"{words}: apt-get {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")


def exit_code(ensure: Callable[[], None]) -> int:
    """Installs; where it cannot it says what is not covered, and only in CI ($CI) this is a failure. 3: not covered."""
    try:
        ensure()
    except NotCovered as reason:
        print(reason, file=sys.stderr)
        return 1 if os.environ.get("CI") else 3
    return 0
