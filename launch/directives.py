"""`cluster.directives` against sbatch's own options, before anything is submitted: a typo costs a wait in the queue.

Where sbatch is on the path its own `--help` says what there is; elsewhere a list of Slurm 22.05 does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from configs.errors import LaunchError
from configs.values import nearest, show
from launch.slurm_client import call, has_slurm

HELP_TIMEOUT_S = 10.0
# What the script says itself, and which key changes it.
OURS = {
    "account": "cluster.account",
    "array": "aisc launch ... -m",
    "constraint": "cluster.constraint",
    "cpus-per-task": "cluster.cpus_per_rank",
    "dependency": "cluster.stages",
    "exclude": "cluster.exclude",
    "gpus": "cluster.gpus_per_node",
    "gpus-per-node": "cluster.gpus_per_node",
    "gpus-per-task": "cluster.gpus_per_node",
    "job-name": "run.name",
    "kill-on-invalid-dep": "cluster.stages",
    "mail-user": "cluster.mail_user",
    "mem": "cluster.memory",
    "nodes": "cluster.nodes",
    "ntasks": "cluster.ranks_per_node",
    "ntasks-per-node": "cluster.ranks_per_node",
    "partition": "cluster.partition",
    "qos": "cluster.qos",
    "reservation": "cluster.reservation",
    "time": "cluster.time",
}
# What the script needs as it is.
FIXED = {
    "open-mode": "a requeued start adds to the output of the one before",
    "output": "the job's output belongs to the run folder, jobs/ID.out",
    "requeue": "a run that was interrupted goes back into the queue",
    "no-requeue": "a run that was interrupted goes back into the queue; cluster.max_restarts=1 ends it after one start in vain",
    "parsable": "it is how the job's number is read",
    "test-only": "every launch is tried out first; --dry-run shows the script and submits nothing",
    "wait": "aisc launch --follow waits",
    "wrap": "the script is the run's own",
    "help": "it is no property of a job",
    "usage": "it is no property of a job",
    "version": "it is no property of a job",
}
# Options that sbatch takes and its --help leaves out.
UNLISTED = ("acctg-freq", "hint", "kill-on-invalid-dep", "mem-bind", "network", "open-mode", "test-only")
_PACKAGED = """
    account array bb bbf begin chdir cluster-constraint clusters comment constraint container contiguous core-spec
    cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution error exclude
    exclusive export export-file extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
    gpus-per-task gres gres-flags help hold ignore-pbs input job-name licenses mail-type mail-user mcs-label mem
    mem-per-cpu mem-per-gpu mincpus nice no-kill no-requeue nodefile nodelist nodes ntasks ntasks-per-core
    ntasks-per-node ntasks-per-socket output overcommit oversubscribe parsable partition power prefer priority profile
    propagate qos quiet reboot requeue reservation signal sockets-per-node spread-job switches thread-spec
    threads-per-core time time-min tmp tres-per-task uid usage use-min-nodes verbose version wait wckey wrap
"""
PACKAGED = _PACKAGED.split()


def parse_help(text: str) -> list[str]:
    """Returns the long options that `sbatch --help` lists, without their dashes."""
    return sorted(set(re.findall(r"^ *(?:-\w,? +)?--([a-z][a-z0-9-]*)", text, re.MULTILINE)))


def known_options() -> list[str]:
    """Returns the long options of the sbatch here; of Slurm 22.05 where there is none, or it does not say."""
    if has_slurm():
        try:
            if listed := parse_help(call(("sbatch", "--help"), timeout_s=HELP_TIMEOUT_S)):
                return sorted({*listed, *UNLISTED})
        except LaunchError:
            pass  # What is wrong with Slurm here is said by the submission; these names are still worth a look.
    return sorted({*PACKAGED, *UNLISTED})


def directive_problems(directives: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Returns one line for each of `cluster.directives` that sbatch does not know or that is not the user's to set."""
    found = []
    for name, value in directives.items():
        where = f"cluster.directives.{name}={show(value)}"
        if name in OURS:
            found.append(f"{where}: is set by {OURS[name]}; use that")
        elif name in FIXED:
            found.append(f"{where}: cannot be changed: {FIXED[name]}")
        elif name not in known:
            free = [option for option in known if option not in FIXED]
            close = nearest(name.lstrip("-").replace("_", "-"), free)
            found.append(f"{where}: no option of sbatch" + (f"; did you mean {close}?" if close else ": its long options: sbatch --help"))
        elif name == "gres" and "gpu" in str(value):
            found.append(f"{where}: GPUs are asked for by cluster.gpus_per_node")
        elif isinstance(value, (dict, list)) or value is None or "\n" in str(value):
            found.append(f"{where}: expected one text or number, or true for an option without a value")
    return found
