"""`cluster`: on which nodes a run goes through the queue, for how long, and what surrounds it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from configs.durations import parse_seconds
from configs.schema.fields import setting

STAGES = ("prepare", "train", "eval", "export")


@dataclass(kw_only=True, slots=True)
class ClusterSection:
    name: str = setting(
        "auto",
        identity=False,
        choices=("auto", "local", "slurm", "aisc"),
        help="local: this machine. slurm: any Slurm, a site file is optional. aisc: the site file must be complete. "
        "auto: slurm for `aisc launch`.",
    )
    site: str | None = setting(
        None,
        identity=False,
        help="Site file: partitions, prices, network and bounds; null: $AISC_SITE, ~/.config/aisc/site.yaml, /etc/aisc/site.yaml.",
    )
    nodes: int = setting(1, identity=False, help="Nodes, 1 or more.")
    gpus_per_node: int | str = setting("auto", identity=False, help="GPUs of each node; auto: what the site's partition has; 0: CPUs.")
    ranks_per_node: int | str = setting("auto", identity=False, help="Processes on each node; auto: one per GPU, one on CPUs.")
    cpus_per_rank: int | str = setting("auto", identity=False, help="CPU cores of each process; auto: the node's share per GPU, else 1.")
    memory: str | None = setting(None, identity=False, help="Memory of each node as sbatch reads it, `200G`; null: the partition's default.")
    time: str = setting("1h", identity=False, help="Time limit of one start: `30 min`, `6h`, `1-12:00:00`; a run may take several.")
    partition: str | None = setting(None, identity=False, help="Partition of the training; null: the site's or Slurm's default.")
    cpu_partition: str | None = setting(
        None, identity=False, help="Partition of prepare and export, which need no GPU; null: the site's, else `partition`."
    )
    account: str | None = setting(None, identity=False, help="Account that is billed; null: the site's for run.project, else Slurm's default.")
    qos: str | None = setting(None, identity=False, help="Quality of service; null: the default.")
    reservation: str | None = setting(None, identity=False, help="Reservation to run in; null: none.")
    constraint: str | None = setting(None, identity=False, help="Features that nodes must have, as sbatch reads them; null: none.")
    exclude: list[str] = setting(factory=list, identity=False, help="Nodes never to use.")
    mail_user: str | None = setting(None, identity=False, help="Who gets mail on END, FAIL, REQUEUE; null: nobody.")
    directives: dict[str, Any] = setting(
        factory=dict, identity=False, help="Further sbatch options by their long names, `{comment: text, exclusive: true}`."
    )
    setup: list[str] = setting(
        factory=list, identity=False, help="Shell lines before the run on every node: `module load ...`, an environment's activation."
    )
    environment: dict[str, str] = setting(factory=dict, identity=False, help="Variables exported in the job, such as NCCL settings.")
    container: str | None = setting(None, identity=False, help="Image to run in: a .sif (apptainer) or what Pyxis reads; null: none.")
    container_runtime: str = setting("apptainer", identity=False, choices=("apptainer", "pyxis"), help="Who runs the image.")
    container_mounts: list[str] = setting(factory=list, identity=False, help="Folders the image sees, `/scratch:/scratch`.")
    stage_to: str | None = setting(
        None, identity=False, help="Folder local to each node into which weights and data are copied first; null: read them where they lie."
    )
    stages: list[str] = setting(
        factory=list, identity=False, help="Jobs, one after another: prepare, train, eval, export; none named: prepare unless done, train."
    )
    check_nodes: bool = setting(True, identity=False, help="Look at the nodes before training: devices, rates, network, disks, versions.")
    max_restarts: int = setting(3, identity=False, help="Starts without progress after which the run gives up, 1 or more.")
    max_gpu_hours: float | None = setting(None, identity=False, help="Most GPU-hours that the run may take in all; null: no limit.")

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        found = []
        try:
            if parse_seconds(self.time) < 60:
                found.append(f"cluster.time={self.time}: expected 1 min or more, Slurm counts in minutes")
        except ValueError as error:
            found.append(f"cluster.time={self.time}: {error}")
        for name, least in (("nodes", 1), ("max_restarts", 1), ("gpus_per_node", 0), ("ranks_per_node", 1), ("cpus_per_rank", 1)):
            value = getattr(self, name)
            if isinstance(value, int) and value < least:
                found.append(f"cluster.{name}={value}: expected {least} or more")
        if self.max_gpu_hours is not None and self.max_gpu_hours <= 0:
            found.append(f"cluster.max_gpu_hours={self.max_gpu_hours:g}: expected more than 0, or null for no limit")
        found += [f"cluster.stages: {name}: expected {', '.join(STAGES)}" for name in self.stages if name not in STAGES]
        return found
