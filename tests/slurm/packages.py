"""What the test cluster needs from the distribution, and its installation:  python -m tests.slurm.packages

Debian's own Slurm, as root, once: some 30 MB to fetch and 30 s. Services of the packages are kept from starting.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.debian import NotCovered, exit_code, install

POLICY = Path("/usr/sbin/policy-rc.d")
PACKAGE_OF = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "ip": "iproute2",
    "unshare": "util-linux",
}
# The database's half of slurmdbd is a file, not a command.
PLUGIN, PLUGIN_PACKAGE = "slurm-wlm/accounting_storage_mysql.so", "slurm-wlm-mysql-plugin"
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
WORDS = "tests/slurm: not covered here"


def missing() -> list[str]:
    """Returns the packages that are not installed."""
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    found = {package for command, package in PACKAGE_OF.items() if shutil.which(command, path=path) is None}
    if not any(Path("/usr/lib").glob(f"*/{PLUGIN}")):
        found.add(PLUGIN_PACKAGE)
    return sorted(found)


def ensure() -> None:
    """Installs what is missing.

    Raises:
        NotCovered: not root, no apt-get, or it failed.
    """
    packages = missing()
    if os.geteuid() != 0:
        raise NotCovered(
            f"{WORDS}: launch, survival and pre-flight on a real Slurm. The test cluster makes network\n"
            f"namespaces and needs root{' and: ' + ' '.join(packages) if packages else ''}. As root: make slurm"
        )
    if not packages:
        return
    own_policy = not POLICY.exists()
    if own_policy:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        install(packages, WORDS)
    finally:
        if own_policy:
            POLICY.unlink(missing_ok=True)
    if missing():
        raise NotCovered(f"{WORDS}: still missing after apt-get: {' '.join(missing())}")


def main() -> int:
    """Installs; returns the exit code."""
    return exit_code(ensure)


if __name__ == "__main__":
    sys.exit(main())
