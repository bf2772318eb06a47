"""The front door: finds the verb, runs it, turns errors into one clear report and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import zlib
from collections.abc import Sequence

from configs.atomic import TEMPORARY_PREFIX
from configs.errors import AlreadyTold, RunFailed, UserError
from configs.values import nearest

VERBS = {
    "init": "cli.init:main",
    "doctor": "cli.doctor:main",
    "inspect": "cli.inspect:main",
    "plan": "cli.plan:main",
    "prove": "cli.prove:main",
    "prepare": "cli.prepare:main",
    "train": "cli.train:main",
    "launch": "cli.launch:main",
    "job": "cli.job:main",
    "chain": "cli.chain_job:main",
    "runs": "cli.runs:main",
    "eval": "cli.eval:main",
    "chat": "cli.chat:main",
    "export": "cli.export:main",
    "verify": "cli.verify:main",
    "completion": "cli.completion:main",
}
# What a verb does instead with a YAML that has `stages:`.
CHAINS = {"train": "cli.chain:train", "launch": "cli.chain_launch:launch", "prove": "cli.prove_chain:main"}
# These look at the one configuration of a run.
OF_ONE_RUN = ("inspect", "plan", "prepare")
# For scripts, not for people.
HIDDEN = ("job", "chain")
# Another's folder, one without write permission, a file system mounted read-only.
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
EXIT_DONE, EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `aisc VERB ...` and returns its exit code.

    0 done, 1 failed, 2 your input, 75 saved and wants to continue, 130 interrupted at once.
    """
    os.umask(0o077)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(given)
    except UserError as error:
        _say(f"error: {_indent(str(error))}")
        return EXIT_INPUT
    except AlreadyTold as error:
        return error.code
    except RunFailed as error:
        _say(f"failed: {_indent(str(error))}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except OSError as error:
        if error.errno not in NOT_ALLOWED or error.filename is None:
            raise
        path = str(error.filename)
        # Files are written under another name first, which says nothing to anybody.
        place = os.path.dirname(path) if os.path.basename(path).startswith(TEMPORARY_PREFIX) else path
        _say(f"error: {place}: {error.strerror}; expected a place that you may read and write")
        return EXIT_INPUT


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        from cli.help import overview

        print(overview(), end="")
        return EXIT_DONE
    if given[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(version("aisc-finetune"))
        return EXIT_DONE
    verb, rest = given[0], given[1:]
    if verb not in VERBS:
        known = [name for name in VERBS if name not in HIDDEN]
        close = nearest(verb, known)
        hint = f"; did you mean {close}?" if close else f"; expected {', '.join(known)}"
        raise UserError(f"aisc {verb}: no such verb{hint}")
    if "--help" in rest or "-h" in rest:
        from cli.help import verb_help

        print(verb_help(verb, [word for word in rest if word not in ("--help", "-h")]), end="")
        return EXIT_DONE
    module, function = (CHAINS[verb] if _means_chain(verb, rest) else VERBS[verb]).split(":")
    code: int = getattr(importlib.import_module(module), function)(rest)
    return code


def _means_chain(verb: str, rest: Sequence[str]) -> bool:
    """Returns whether the command is of a chain; raises where only a single run can be meant."""
    if verb not in (*CHAINS, *OF_ONE_RUN):
        return False
    from cli.screens import is_multirun
    from configs.chain import is_chain

    if not is_chain(rest):
        return False
    if verb in OF_ONE_RUN:
        raise UserError(f"aisc {verb}: this is a chain (stages:); give one stage's YAML, or check all: aisc train ... --dry-run")
    if is_multirun(rest):
        raise UserError(f"aisc {verb} -m: a chain (stages:) cannot be swept; sweep one stage's YAML")
    return True


def _say(message: str) -> None:
    """Prints to stderr what went wrong; of a job's ranks that would say the same, one does."""
    if _is_first_to_say(message):
        print(message, file=sys.stderr)


def _is_first_to_say(message: str) -> bool:
    run, rank = os.environ.get("AISC_RUN"), os.environ.get("SLURM_PROCID")
    if run is None or rank is None:
        return True
    start = f"{os.environ.get('SLURM_JOB_ID')}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    mark = os.path.join(run, "jobs", f".said-{start}-{zlib.crc32(message.encode()):08x}")
    try:
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def _indent(message: str) -> str:
    return message if "\n" not in message else message.replace("\n", "\n  ")


if __name__ == "__main__":
    sys.exit(main())
