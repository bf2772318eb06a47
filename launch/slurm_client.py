"""Slurm's own commands, called with a bounded wait; what they say becomes one clear sentence. Torch-free."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from configs.errors import LaunchError

TIMEOUT_S = 30.0
_SILENT = ("Unable to contact slurm controller", "Connection refused", "Socket timed out", "Zero Bytes were transmitted")


def has_slurm() -> bool:
    """True when sbatch is on this machine's path."""
    return shutil.which("sbatch") is not None


def call(
    command: Sequence[str], *, given: str | None = None, timeout_s: float = TIMEOUT_S, keeps_stderr: bool = False
) -> str:
    """Returns what a Slurm command prints.

    Args:
        command: such as ("squeue", "--noheader").
        given: its standard input.
        timeout_s: the longest wait; a controller that does not answer is no reason to hang.
        keeps_stderr: return what it wrote to stderr too, where `sbatch --test-only` says its estimate.

    Raises:
        LaunchError: no such command here, no answer, or a refusal, in Slurm's words.
    """
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError as error:
        raise LaunchError(
            f"{command[0]}: no Slurm on this machine; log in to a node that has it, or run here: aisc train"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"{command[0]}: the Slurm controller did not answer within {timeout_s:.0f} s; try again later") from error
    if done.returncode != 0:
        lines = [line.strip().removeprefix(f"{command[0]}: ").removeprefix("error: ") for line in done.stderr.splitlines()]
        said = "; ".join(line for line in lines if line) or f"exit code {done.returncode}"
        if any(words in said for words in _SILENT):
            raise LaunchError(f"{command[0]}: the Slurm controller does not answer ({said}); try again later")
        raise LaunchError(f"{command[0]} refused: {said}")
    return done.stdout + (done.stderr if keeps_stderr else "")
