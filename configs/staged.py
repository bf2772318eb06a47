"""Copies of weights and data on a node's own disk. Only reading goes there: names, hashes and identity stay the originals'.

A job with cluster.stage_to fills the folder $AISC_STAGED on each node before its ranks start; `staged.json` in it, written
last, says which folder is copied where. Without that variable every path is itself.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from configs.errors import ConfigError
from configs.runfolder import read_json

VARIABLE, MAP_NAME = "AISC_STAGED", "staged.json"


def staged(path: Path) -> Path:
    """Returns where to read `path`, a folder or a file in one, on this node.

    Raises:
        ConfigError: the job staged to a folder that is not complete here.
    """
    place = os.environ.get(VARIABLE)
    if not place:
        return path
    copies = _copies(place)
    whole = path.absolute()
    if str(whole) in copies:
        return Path(copies[str(whole)])
    if str(whole.parent) in copies and (copy := Path(copies[str(whole.parent)]) / whole.name).is_file():
        return copy
    return path


@functools.cache
def _copies(place: str) -> dict[str, str]:
    known = read_json(Path(place) / MAP_NAME)
    if known is None:
        raise ConfigError(f"${VARIABLE}={place}: no {MAP_NAME} there, so this node has no complete copy of weights and data")
    return {str(name): str(copy) for name, copy in known["folders"].items()}
