"""Errors that a user can act on. Each message says what was given, what was expected and what to do."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave cannot be used; shown as plain text with exit code 2, never as a stack trace."""


class ConfigError(UserError):
    """A key or value of the configuration; `problems` holds one line each."""

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """Rows, files, templates or stores that cannot be learned from."""


class CheckpointError(UserError):
    """A checkpoint or run folder that is damaged or belongs to something else."""


class LaunchError(UserError):
    """The queue, the cluster or a request to it: no Slurm, no such partition, a budget that is used up."""


class RunFailed(RuntimeError):
    """The run itself went wrong (non-finite loss, failed check); exit code 1. The message is for the user."""


class AlreadyTold(RunFailed):
    """Another rank has said why the run ends; this one leaves without a word, with the same exit code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"the cause is told by another rank (exit code {code})")
