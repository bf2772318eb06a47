"""Which documents are held out, and how often the others appear: keyed hashes, so the answer never depends on order."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from data_pipelines.privacy.normalise import SMALL_LOOKALIKE, canonical

Int64 = NDArray[np.int64]


def group_name(value: str | int) -> str:
    """Returns the name of a group, the same for all its spellings: no case, width, blanks, accents or look-alike letters.

    7 and "7" are one group (a table and a JSON file write one key differently), 7 and 07 are two.
    """
    name = str(value)
    # Composed and decomposed letters are one spelling; a case can have marks or look-alikes of its own: until nothing changes.
    while (folded := canonical(unicodedata.normalize("NFKD", name.casefold())).translate(SMALL_LOOKALIKE)) != name:
        name = folded
    return name


def hash_key(value: str | int) -> int:
    """Returns a signed 64-bit hash of a group's name."""
    return hash_bytes(f"group:{group_name(value)}".encode("utf-8", "surrogatepass"))


def hash_bytes(content: bytes | memoryview) -> int:
    """Returns a signed 64-bit hash of some bytes."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


def keyed(values: Int64, key: str) -> NDArray[np.uint64]:
    """Returns a uniform 64-bit number for each value under `key` (SplitMix64, Steele et al. 2014)."""
    mixed = values.astype(np.uint64) ^ np.uint64(hash_bytes(key.encode()) & (2**64 - 1))
    with np.errstate(over="ignore"):
        mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def share_of(validation: str) -> float | None:
    """Returns the held-out share of `5%` as 0.05, 0.0 for `none`, None when `validation` is a path.

    Raises:
        DataError: a percentage that is not between 0 and 100.
    """
    if validation.strip().lower() == "none":
        return 0.0
    found = re.fullmatch(r"\s*([0-9.]+)\s*%\s*", validation)
    if not found:
        return None
    try:
        share = float(found.group(1)) / 100
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise DataError(f"data.validation={validation}: expected more than 0% and less than 100%, a path, or none")
    return share


def hold_out(groups: Int64, share: float, seed: int) -> NDArray[np.bool_]:
    """Returns True for the documents of the held-out groups: the share of all groups, at least one on each side.

    Raises:
        DataError: there is only one group.
    """
    if share == 0.0:
        return np.zeros(len(groups), np.bool_)
    unique = np.unique(groups)
    if len(unique) < 2:
        raise DataError(
            f"data.validation: {len(unique)} group cannot be split in two; give more rows, data.validation=PATH or none"
        )
    count = min(max(1, round(share * len(unique))), len(unique) - 1)
    order = np.argsort(keyed(unique, f"hold out {seed}"), kind="stable")
    return np.isin(groups, unique[order[:count]])


def proof(trained: Int64, held_out: Int64) -> dict[str, Any]:
    """Returns what shows that no group is on both sides: groups of each side, those on both, a hash of each side's set.

    A group is the hash of its name in one spelling (`group_name`), so other spellings are the same group. Each SHA-256 is
    of the sorted 64-bit hashes, little-endian: whoever has the rows can recompute it.
    """
    sides = {"trained": np.unique(trained), "held_out": np.unique(held_out)}
    found: dict[str, Any] = {"on_both_sides": int(np.isin(sides["trained"], sides["held_out"]).sum())}
    for name, groups in sides.items():
        found[f"{name}_groups"] = len(groups)
        found[f"{name}_sha256"] = hashlib.sha256(groups.astype("<i8").tobytes()).hexdigest()
    return found


def copies(weights: NDArray[np.float64], identities: Int64, seed: int) -> Int64:
    """Returns how often each document appears in an epoch.

    Args:
        weights: weight of each document's source, `[D]`, more than 0.
        identities: a number of its own for each document, `[D]`.
        seed: key of the fraction: weight 2.5 is two of every document and a third of a fixed half of them.
    """
    whole = np.floor(weights)
    uniform = keyed(identities, f"weight {seed}") / np.float64(2**64)
    return (whole + (uniform < weights - whole)).astype(np.int64)
