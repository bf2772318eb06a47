"""The configuration files of the test cluster, as texts."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GPUS = 4
DATABASE_PASSWORD = "only-inside-this-folder"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a cluster lives: its folder, its nodes, the first of four TCP ports, `10.x.y` of its network, its bridge."""

    state: Path
    nodes: tuple[str, ...]
    port: int
    subnet: str
    bridge: str

    @property
    def controller_address(self) -> str:
        """The bridge's own address: where slurmctld listens."""
        return f"{self.subnet}.1"

    def address(self, node: str) -> str:
        """Returns the IP address of a node."""
        return f"{self.subnet}.{11 + self.nodes.index(node)}"

    def cable(self, node: str) -> str:
        """Returns the name of the host's end of a node's cable."""
        return f"{self.bridge}.{1 + self.nodes.index(node)}"


def slurm_conf(layout: Layout) -> str:
    """Returns slurm.conf."""
    state = layout.state
    nodes = "\n".join(f"NodeName={n} NodeHostname={n} NodeAddr={layout.address(n)} Port={layout.port + 1}" for n in layout.nodes)
    return f"""\
ClusterName=testing
SlurmctldHost={socket.gethostname().split(".")[0]}({layout.controller_address})
SlurmctldPort={layout.port}
SlurmdPort={layout.port + 1}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until the credential of its last start has expired; the default is two minutes.
AuthInfo=socket={state}/run/munge.socket,cred_expire=10
CryptoType=crypto/munge
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/spool/%n
SlurmctldPidFile={state}/run/slurmctld.pid
SlurmdPidFile={state}/run/slurmd.%n.pid
SlurmctldLogFile={state}/log/slurmctld.log
SlurmdLogFile={state}/log/slurmd.%n.log
PlugStackConfig={state}/etc/plugstack.conf
# One machine plays several: no control groups, no binding, this file is believed and not the hardware.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
MpiDefault=none
SwitchType=switch/none
# Quick to react, patient with a busy machine.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
DefMemPerCPU=100
MinJobAge=36000
KillWait=20
UnkillableStepTimeout=180
BatchStartTimeout=60
OverTimeLimit=0
SlurmdTimeout=15
SlurmctldTimeout=20
MessageTimeout=10
InactiveLimit=0
Waittime=0
ReturnToService=2
TreeWidth=64
JobRequeue=1
# What can never run is refused at once instead of waiting for ever.
EnforcePartLimits=ALL
PreemptType=preempt/qos
PreemptMode=REQUEUE
PreemptExemptTime=0
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={layout.controller_address}
AccountingStoragePort={layout.port + 2}
AccountingStorageUser=root
AccountingStoragePass={state}/run/munge.socket
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment,job_script,job_env
GresTypes=gpu
NodeName=DEFAULT CPUs=16 Boards=1 SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 RealMemory=64000 Gres=gpu:{GPUS} State=UNKNOWN
{nodes}
PartitionName=DEFAULT Nodes={",".join(layout.nodes)} MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=main Default=YES
PartitionName=cpu
"""


def gres_conf(layout: Layout) -> str:
    """Returns gres.conf; a GPU's file has to be a character device, and a link to /dev/null is one."""
    lines = [f"NodeName={node} Name=gpu File={layout.state}/gpu/nvidia[0-{GPUS - 1}]" for node in layout.nodes]
    return "\n".join(["AutoDetect=off", *lines, ""])


def slurmdbd_conf(layout: Layout) -> str:
    """Returns slurmdbd.conf."""
    state = layout.state
    return f"""\
DbdHost={socket.gethostname().split(".")[0]}
DbdAddr={layout.controller_address}
DbdPort={layout.port + 2}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={state}/run/munge.socket
LogFile={state}/log/slurmdbd.log
PidFile={state}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={layout.port + 3}
StorageUser=slurm
StoragePass={DATABASE_PASSWORD}
StorageLoc=slurm_acct_db
"""


def hosts(layout: Layout) -> str:
    """Returns the nodes' /etc/hosts: this machine's, without names of nodes, and ours."""
    lines = Path("/etc/hosts").read_text().splitlines()
    kept = [line for line in lines if not set(line.split("#")[0].split()[1:]) & set(layout.nodes)]
    return "\n".join([*kept, *(f"{layout.address(node)} {node}" for node in layout.nodes), ""])


def hosts_file(layout: Layout, node: str) -> Path:
    """Returns what a node sees as /etc/hosts; each has its own, by which its processes are known."""
    return layout.state / "spool" / node / "hosts"


def nsswitch() -> str:
    """Returns the nodes' /etc/nsswitch.conf: no name server is reachable from a node, and asking one takes ten seconds."""
    lines = Path("/etc/nsswitch.conf").read_text().splitlines() if Path("/etc/nsswitch.conf").exists() else []
    return "\n".join([*(line for line in lines if not line.startswith("hosts:")), "hosts: files", ""])


def write_all(layout: Layout) -> None:
    """Writes every file that the daemons read."""
    state, etc = layout.state, layout.state / "etc"
    for name in ("etc", "log", "pids", "run", "spool", "ctld", "gpu"):
        (state / name).mkdir(parents=True, exist_ok=True)
    for number in range(GPUS):
        link = state / "gpu" / f"nvidia{number}"
        if not link.is_symlink():
            link.symlink_to("/dev/null")
    texts = {
        "slurm.conf": slurm_conf(layout),
        "gres.conf": gres_conf(layout),
        "slurmdbd.conf": slurmdbd_conf(layout),
        "cgroup.conf": "CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n",
        "plugstack.conf": "",
        "nsswitch.conf": nsswitch(),
    }
    for name, text in texts.items():
        (etc / name).write_text(text)
    (etc / "slurmdbd.conf").chmod(0o600)
    for node in layout.nodes:
        own = hosts_file(layout, node)
        own.parent.mkdir(exist_ok=True)
        own.write_text(hosts(layout))


# In Slurm's own order: who may push out whom, and how long a pushed-out job may still run.
QUALITIES: Sequence[Sequence[str]] = (
    ("add", "account", "tests", "Description=tests", "Organization=tests"),
    ("add", "user", "root", "account=tests", "AdminLevel=Admin"),
    ("add", "qos", "low", "Priority=1", "PreemptMode=requeue", "GraceTime=20"),
    ("add", "qos", "high", "Priority=1000", "Preempt=low,normal"),
    ("modify", "qos", "normal", "set", "Priority=10", "Preempt=low", "PreemptMode=requeue", "GraceTime=20"),
    ("modify", "user", "root", "set", "qos=low,normal,high", "defaultqos=normal"),
)
