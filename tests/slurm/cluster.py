"""A real Slurm of three nodes on one machine, for tests.

    python -m tests.slurm.cluster start STATE       # prints what to export; then sinfo, sbatch, aisc launch just work
    python -m tests.slurm.cluster status|stop STATE

Every node is a slurmd with a network, a host name and an /etc/hosts of its own; the nodes meet on a bridge and share the
file system and the cores. munge, slurmctld, slurmdbd and its database run beside them. All that is written is in STATE;
the distribution's services and files are left alone. Needs root (network namespaces), see packages.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.slurm import files, job_view, packages
from tests.slurm.processes import Daemons, kill, seeing, start_time, wait_until

ROOT = Path(__file__).resolve().parents[2]
NODES = ("node1", "node2", "node3")
MAX_STATE_LENGTH = 60  # of unix sockets' names the kernel takes 107 characters
# Inside its namespaces: a name, a loopback, an address on the cable that the host has plugged in meanwhile; then slurmd.
_BECOME_NODE = """
read -r plugged
hostname "$1"
mount --make-rprivate /
mount --bind "$3/spool/$1/hosts" /etc/hosts
mount --bind "$3/etc/nsswitch.conf" /etc/nsswitch.conf
ip link set lo up
ip address add "$2/24" dev eth0
ip link set eth0 up
exec slurmd -D -N "$1" </dev/null
"""


class ClusterError(RuntimeError):
    """A command to the cluster failed; the message is what it said."""


class Cluster:
    """A cluster in folder `state`, started or not; several objects, in several processes, may speak of the same one."""

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        if len(str(self.state)) > MAX_STATE_LENGTH:
            raise ClusterError(f"{self.state}: longer than {MAX_STATE_LENGTH} characters, a socket's name would not fit")
        self.daemons = Daemons(self.state)
        facts = self.state / "cluster.json"
        self.layout = _read_layout(facts) if facts.exists() else _new_layout(self.state)

    @property
    def env(self) -> dict[str, str]:
        """The environment for commands: this cluster, this checkout, this Python, few threads, no internet."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN", "PYTEST"))}
        return {
            **inherited,
            "SLURM_CONF": str(self.state / "etc" / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:{packages.SYSTEM_PATH}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    # Whole cluster

    def start(self, owner: int = 0) -> None:
        """Brings up everything that does not run yet and waits for the nodes.

        Args:
            owner: process without which the cluster is of no use (`stop_abandoned`); 0: none.
        """
        packages.ensure()
        self.state.mkdir(parents=True, exist_ok=True)
        facts = {**asdict(self.layout), "state": str(self.state), "owner": [owner, start_time(owner) if owner else ""]}
        (self.state / "cluster.json").write_text(json.dumps(facts))
        files.write_all(self.layout)
        try:
            self._make_bridge()
            self._start_munge()
            self._start_accounting()
            self.start_ctld()
            for node in self.layout.nodes:
                self._start_slurmd(node)
            self.wait_idle(60.0)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends every process, removes the bridge; the files stay. May be called again."""
        if self.daemons.pid("slurmctld") is not None:
            self._try("scancel", "--quiet", "--full", "--signal=KILL", "--user=root")
            self._try("scancel", "--quiet", "--user=root")
        for node in self.layout.nodes:
            self.daemons.end(f"slurmd.{node}", 3.0)
        for _ in range(2):  # one may have been about to start another
            kill(self.processes_of())
        for name, grace_s in (("slurmctld", 5.0), ("slurmdbd", 5.0), ("mariadbd", 15.0), ("munged", 3.0)):
            self.daemons.end(name, grace_s)
        _run(["ip", "link", "delete", self.layout.bridge], check=False)

    def wait_idle(self, timeout_s: float = 120.0) -> None:
        """Waits until every node is idle and no job waits or runs."""
        wait_until(
            lambda: self._node_states() == ["idle"] * len(self.layout.nodes) and self._try("squeue", "--noheader") == "",
            timeout_s,
            lambda: f"nodes are not idle:\n{self._try('sinfo', '-N', '-l')}\n{self._try('squeue')}",
        )

    def reset(self) -> None:
        """Cancels all jobs and mends what a test has broken."""
        self.start_ctld()
        self._try("scancel", "--quiet", "--user=root")
        for node in self.layout.nodes:
            self.set_bandwidth(node, None)
            self.heal_net(node)
            self.start_node(node)
        wait_until(
            # A job that ended while the controller was away is completing until its node tells again.
            lambda: self._try("squeue", "--noheader") == "", 180.0, lambda: f"jobs do not end:\n{self._try('squeue')}"
        )
        self._kill_tasks()  # those of a cut-off node, which nobody could reach
        for node in self.layout.nodes:
            self._try("scontrol", "update", f"NodeName={node}", "State=RESUME")
        self.wait_idle()

    # Jobs

    def call(self, *command: str, cwd: Path | None = None, timeout_s: float = 60.0) -> str:
        """Returns what a command prints, run with this cluster's environment.

        Raises:
            ClusterError: it ended with another code than 0, or not at all.
        """
        return _run(command, env=self.env, cwd=cwd, timeout_s=timeout_s)

    def submit(self, script: Path, *options: str, cwd: Path | None = None) -> int:
        """Submits a script and returns the job's number."""
        return int(self.call("sbatch", "--parsable", *options, str(script), cwd=cwd).split(";")[0])

    def job(self, job_id: int) -> job_view.JobView:
        """Returns a job as it is now."""
        text = self.call("scontrol", "--oneliner", "show", "job", str(job_id)).splitlines()[0]
        return job_view.JobView(dict(word.split("=", 1) for word in text.split() if "=" in word))

    def wait_for_job(self, job_id: int, state: str = "COMPLETED", restarts: int = 0, timeout_s: float = 240.0) -> job_view.JobView:
        """Waits until the job is in `state`, having been requeued `restarts` times at least; returns it.

        Raises:
            TimeoutError: not within `timeout_s`.
            ClusterError: it has come to another end.
        """
        seen: list[job_view.JobView] = []

        def reached() -> bool:
            try:
                seen.append(self.job(job_id))
            except ClusterError:  # the controller may be away for a while
                return False
            now = seen[-1]
            if now.state == state and now.restarts >= restarts:
                return True
            # States of an end are passed through on the way to the next start.
            if len(seen) > 20 and all(view.state == now.state for view in seen[-20:]) and now.state in job_view.ENDED:
                raise ClusterError(f"job {job_id} is {now.state}, expected {state}:\n{now.output}")
            return False

        wait_until(
            reached,
            timeout_s,
            lambda: f"job {job_id} is not {state} (restarts {restarts}): {seen[-1].fields if seen else ''}"
            f"\n{seen[-1].output if seen else ''}",
            every_s=0.2,
        )
        return seen[-1]

    def sacct(self, job_id: int, *fields: str) -> list[dict[str, str]]:
        """Returns what the accounting has of a job that ended, one row per start, newest last: it comes seconds late."""
        asked = ("sacct", "-j", str(job_id), "-X", "-D", "-P", "-n")
        wait_until(lambda: job_view.has_ended(self.call(*asked, "--format=State")), 30.0, lambda: f"sacct: {job_id} goes on")
        text = self.call(*asked, f"--format={','.join(fields)}")
        return [dict(zip(fields, row.split("|"), strict=True)) for row in text.splitlines()]

    # Faults
    def kill_node(self, node: str) -> None:
        """Everything on a node is gone at once, as if its plug was pulled: nothing says goodbye over the network either."""
        if self.daemons.pid(f"slurmd.{node}") is None:
            return
        self.cut_net(node)
        self.daemons.end(f"slurmd.{node}", 0.0, signal.SIGKILL)
        for _ in range(2):  # one may have been about to start another
            kill(self.processes_of(node))

    def start_node(self, node: str) -> None:
        """Starts a node that was killed."""
        if self.daemons.pid(f"slurmd.{node}") is None:
            self._start_slurmd(node)

    def cut_net(self, node: str) -> None:
        """Pulls a node's cable; what runs there goes on."""
        _run(["ip", "link", "set", self.layout.cable(node), "down"])

    def heal_net(self, node: str) -> None:
        """Plugs the cable in again."""
        _run(["ip", "link", "set", self.layout.cable(node), "up"], check=False)

    def set_bandwidth(self, node: str, rate: str | None) -> None:
        """Limits a node's link in both directions, `8mbit`; None: no limit."""
        sides: list[tuple[list[str], str]] = [([], self.layout.cable(node))]
        pid = self.daemons.pid(f"slurmd.{node}")
        if pid is not None:
            sides.append((["nsenter", f"--net=/proc/{pid}/ns/net"], "eth0"))
        for prefix, device in sides:
            if rate is None:
                _run([*prefix, "tc", "qdisc", "delete", "dev", device, "root"], check=False)
            else:
                limit = ["tbf", "rate", rate, "burst", "32kbit", "latency", "400ms"]
                _run([*prefix, "tc", "qdisc", "replace", "dev", device, "root", *limit])

    def inside(self, node: str, *command: str) -> str:
        """Returns what a command prints in a node's own network, host name and mounts.

        A file system mounted so is seen by what runs on this node only, until the node is killed.
        """
        pid = self.daemons.pid(f"slurmd.{node}")
        spaces = [f"--{space}=/proc/{pid}/ns/{name}" for space, name in (("mount", "mnt"), ("uts", "uts"), ("net", "net"))]
        return _run(["nsenter", *spaces, *command], env=self.env)

    def kill_ctld(self) -> None:
        """The controller goes; jobs go on. It writes down its state first: killed, it forgets the jobs of the last seconds."""
        self.daemons.end("slurmctld", 20.0)

    def start_ctld(self) -> None:
        """Starts the controller, which finds its jobs again."""
        if self.daemons.pid("slurmctld") is None:
            self._start("slurmctld", ["slurmctld", "-D"], lambda: "is UP" in self._try("scontrol", "ping"))

    # Parts

    def processes_of(self, node: str | None = None) -> list[int]:
        """Returns all processes of a node, slurmd among them; None: of all nodes."""
        names = self.layout.nodes if node is None else (node,)
        return [pid for name in names for pid in seeing(files.hosts_file(self.layout, name), "/etc/hosts")]

    def _kill_tasks(self) -> None:
        own = {self.daemons.pid(name) for name in self.daemons.names()}
        kill([pid for pid in self.processes_of() if pid not in own])

    def _node_states(self) -> list[str]:
        lines = set(self._try("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines())
        return [line.split()[1] for line in sorted(lines)]

    def _try(self, *command: str) -> str:
        """Returns what a command prints; when it fails, what it says to that."""
        try:
            return self.call(*command)
        except ClusterError as error:
            return str(error)

    def _answers(self, *command: str) -> bool:
        try:
            self.call(*command)
        except ClusterError:
            return False
        return True

    def _start(self, name: str, command: Sequence[str], is_up: Callable[[], bool], timeout_s: float = 60.0) -> None:
        self.daemons.start(name, command, self.env)

        def up() -> bool:
            if self.daemons.pid(name) is None:
                raise ClusterError(f"{name} ended at once: {self.daemons.last_words(name)}")
            return is_up()

        wait_until(up, timeout_s, lambda: f"{name} is not up: {self.daemons.last_words(name)}")

    def _make_bridge(self) -> None:
        bridge = self.layout.bridge
        if Path(f"/sys/class/net/{bridge}").exists():
            return
        _run(["ip", "link", "add", bridge, "type", "bridge"])
        _run(["ip", "address", "add", f"{self.layout.controller_address}/24", "dev", bridge])
        _run(["ip", "link", "set", bridge, "up"])

    def _start_munge(self) -> None:
        if self.daemons.pid("munged") is not None:
            return
        key, run, socket_path = self.state / "etc" / "munge.key", self.state / "run", self.state / "run" / "munge.socket"
        key.write_bytes(os.urandom(256))
        key.chmod(0o600)
        for path in run.glob("munge.socket*"):
            path.unlink()
        places = [f"--key-file={key}", f"--socket={socket_path}", f"--pid-file={run / 'munged.pid'}"]
        places += [f"--log-file={self.state / 'log' / 'munged.log'}", f"--seed-file={run / 'munge.seed'}"]
        self._start("munged", ["munged", "--foreground", "--force", "--num-threads=2", *places], socket_path.is_socket)

    def _start_accounting(self) -> None:
        data, database_socket = self.state / "db", self.state / "run" / "db.sock"
        base = ["--no-defaults", f"--datadir={data}", "--user=root"]
        client = ["mariadb", "--no-defaults", "--user=root", f"--socket={database_socket}"]
        if self.daemons.pid("mariadbd") is None:
            if not (data / "mysql").exists():
                self.call("mariadb-install-db", *base, "--auth-root-authentication-method=normal", "--skip-test-db", timeout_s=180)
            small = ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--performance-schema=off", "--skip-log-bin"]
            quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900", "--skip-name-resolve"]
            place = [f"--socket={database_socket}", "--bind-address=127.0.0.1", f"--port={self.layout.port + 3}"]
            place.append(f"--pid-file={self.state / 'run' / 'db.pid'}")
            command = ["mariadbd", *base, *place, *small, *quick]
            self._start("mariadbd", command, lambda: self._answers(*client, "--execute=select 1"))
            user = "slurm@'127.0.0.1'"
            self.call(
                *client,
                f"--execute=CREATE DATABASE IF NOT EXISTS slurm_acct_db; "
                f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{files.DATABASE_PASSWORD}'; "
                f"GRANT ALL ON slurm_acct_db.* TO {user};",
            )
        if self.daemons.pid("slurmdbd") is None:
            self._start("slurmdbd", ["slurmdbd", "-D"], lambda: self._answers("sacctmgr", "-n", "show", "cluster"))
        if not self.call("sacctmgr", "-nP", "show", "cluster", "testing", "format=cluster"):
            self.call("sacctmgr", "-i", "add", "cluster", "testing")
            for words in files.QUALITIES:
                self.call("sacctmgr", "-i", *words)

    def _start_slurmd(self, node: str) -> None:
        cable = self.layout.cable(node)
        _run(["ip", "link", "delete", cable], check=False)
        spaces = ["unshare", "--uts", "--mount", "--net"]
        values = [node, self.layout.address(node), str(self.state)]
        child = self.daemons.start(f"slurmd.{node}", [*spaces, "sh", "-ec", _BECOME_NODE, "sh", *values], self.env)
        own = os.readlink("/proc/self/ns/net")
        wait_until(
            lambda: os.readlink(f"/proc/{child.pid}/ns/net") != own,
            10.0,
            lambda: f"{node} got no network of its own: {self.daemons.last_words(f'slurmd.{node}')}",
            every_s=0.005,
        )
        _run(["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(child.pid)])
        _run(["ip", "link", "set", cable, "master", self.layout.bridge, "up"])
        assert child.stdin is not None
        child.stdin.write(b"plugged\n")
        child.stdin.close()


def _run(
    command: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60.0,
    check: bool = True,
) -> str:
    environment = env or {**os.environ, "PATH": f"{os.environ['PATH']}:{packages.SYSTEM_PATH}"}
    # The program is looked up in the path of this process, which need not hold the system's commands.
    program = shutil.which(command[0], path=environment["PATH"]) or command[0]
    try:
        done = subprocess.run(
            [program, *command[1:]], env=environment, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(command)}: no answer within {timeout_s:.0f} s") from error
    if check and done.returncode:
        raise ClusterError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-3000:]}{done.stdout[-1000:]}")
    return done.stdout


def _read_layout(facts: Path) -> files.Layout:
    values: dict[str, Any] = json.loads(facts.read_text())
    del values["owner"]
    return files.Layout(**{**values, "state": Path(values["state"]), "nodes": tuple(values["nodes"])})


def _new_layout(state: Path) -> files.Layout:
    """Returns a layout with ports and a network that nobody uses now."""
    taken = _run(["ip", "-brief", "address"])
    chance = random.Random()
    while True:
        subnet = f"10.{chance.randrange(200, 250)}.{chance.randrange(1, 250)}"
        port = chance.randrange(17000, 29000, 10)
        if f"{subnet}." not in taken and all(_is_free(port + i) for i in range(4)):
            return files.Layout(state, NODES, port, subnet, f"ais{chance.randrange(16**6):06x}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@contextlib.contextmanager
def temporary() -> Iterator[Cluster]:
    """A cluster for a while; what it leaves behind in processes, mounts and networks, a job running, is an error."""
    stop_abandoned(Path("/tmp"))
    state = Path(tempfile.mkdtemp(prefix="aisc-slurm-", dir="/tmp"))
    cluster = Cluster(state)
    try:
        cluster.start(owner=os.getpid())
        yield cluster
        cluster.call("sbatch", "--nodes=3", "--output=/dev/null", "--wrap=srun sleep 600")
    finally:
        cluster.stop()
        assert cluster.daemons.names() == [] and cluster.processes_of() == []
        assert not Path("/sys/class/net", cluster.layout.bridge).exists()
        assert str(state) not in Path("/proc/mounts").read_text()
        shutil.rmtree(state)


def stop_abandoned(folder: Path) -> None:
    """Stops the clusters in `folder` whose owner is gone: a session of tests that was killed leaves one behind."""
    for facts in folder.glob("aisc-slurm-*/cluster.json"):
        owner, started = json.loads(facts.read_text())["owner"]
        if owner and start_time(owner) != started:
            Cluster(facts.parent).stop()
            shutil.rmtree(facts.parent)


def main(arguments: list[str]) -> int:
    """Starts, shows or stops a cluster for a person."""
    if len(arguments) != 2 or arguments[0] not in ("start", "status", "stop"):
        print(__doc__, file=sys.stderr)
        return 2
    verb, state = arguments
    cluster = Cluster(Path(state))
    if verb == "start":
        began = time.monotonic()
        cluster.start()
        print(f"export SLURM_CONF={cluster.env['SLURM_CONF']}    # up after {time.monotonic() - began:.1f} s")
    elif verb == "stop":
        cluster.stop()
    else:
        print("\n".join(cluster.daemons.names()) or "nothing runs")
        print(cluster._try("sinfo", "-N", "-l"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
