"""Stops a chain: the jobs of later stages leave the queue first, the training that runs saves and stops."""

from __future__ import annotations

from configs.errors import LaunchError
from launch.chain import ChainFolder
from launch.control import stop


def stop_chain(chain: ChainFolder) -> list[str]:
    """Stops every stage that runs or waits, and returns a sentence for each; the same command continues.

    Raises:
        LaunchError: nothing of it runs or waits.
    """
    said, causes = [], []
    for run in reversed(list(dict.fromkeys(stage.run for stage in chain.info().stages))):
        try:
            said.append(stop(chain.path / run))
        except LaunchError as error:
            causes.append(str(error))
    if not said:
        raise LaunchError(f"{chain.name}: nothing to stop. {causes[-1]}")
    return said
