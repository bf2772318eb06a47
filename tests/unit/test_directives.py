"""Extra sbatch options: unknown ones get the nearest name, those of the renderer the key to use instead."""

from __future__ import annotations

from typing import Any

import pytest

from launch.directives import FIXED, OURS, PACKAGED, UNLISTED, directive_problems, known_options, parse_help
from launch.slurm import directive

HELP = """\
Usage: sbatch [OPTIONS(0)...] [ : [OPTIONS(N)...]] script(0) [args(0)...]

Parallel run options:
  -a, --array=indexes         job array index values
      --bb=<spec>             burst buffer specifications
      --deadline=time         remove the job if no ending possible before
                              this deadline (start > (deadline - time[-min]))
                              --mem >= --mem-per-cpu if --mem is specified.
      --exclusive[=user]      allocate nodes in exclusive mode when
  -B  --extra-node-info=S[:C[:T]]  combine request of sockets per node,
      --gpu-bind=...          task to gpu binding options
"""


def test_the_help_text_is_read() -> None:
    listed = parse_help(HELP)
    assert {"array", "bb", "deadline", "exclusive", "extra-node-info", "gpu-bind"} <= set(listed)
    assert "time" not in listed


@pytest.mark.parametrize(
    ("directives", "said"),
    [
        ({"exclusiv": True}, "did you mean exclusive?"),
        ({"cpus_per_gpu": 4}, "did you mean cpus-per-gpu?"),
        ({"zzz": 1}, "sbatch --help"),
        ({"nodes": 3}, "cluster.nodes"),
        ({"time": "1:00:00"}, "cluster.time"),
        ({"mem": "10G"}, "cluster.memory"),
        ({"output": "x.out"}, "belongs to the run folder"),
        ({"no-requeue": True}, "goes back into the queue"),
        ({"gres": "gpu:4"}, "cluster.gpus_per_node"),
        ({"comment": ["a"]}, "expected one text"),
        ({"comment": "a\n#SBATCH --uid=0"}, "expected one text"),
    ],
)
def test_a_bad_directive_is_named_with_what_to_do(directives: dict[str, Any], said: str) -> None:
    (problem,) = directive_problems(directives, PACKAGED)
    assert problem.startswith(f"cluster.directives.{next(iter(directives))}=") and said in problem


def test_good_directives_pass() -> None:
    good = {"comment": "hello world", "exclusive": True, "gres": "tmpfs:10G", "licenses": "a:1", "signal": "USR1@60", "hint": "nomultithread"}
    assert directive_problems(good, known_options()) == []
    assert directive("comment", "hello world") == "--comment='hello world'"


def test_every_option_that_is_refused_is_one_of_sbatch() -> None:
    assert {*OURS, *FIXED} <= {*PACKAGED, *UNLISTED}
