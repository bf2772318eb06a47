"""The sample ledger: a hash chain over what each step consumed. "Resumed exactly" is a comparison of two hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Ledger:
    """head(0) = sha256(fingerprint); head(k+1) = sha256(head(k), step, position, skips, row ids)."""

    def __init__(self, fingerprint: str, head: str = "") -> None:
        """Starts the chain of the store `fingerprint`, or continues it at `head`."""
        self.head = head or hashlib.sha256(fingerprint.encode()).hexdigest()

    def append(self, step: int, position: int, row_ids: NDArray[np.int64], skipped: Sequence[int] = ()) -> str:
        """Adds the rows `[G]` of one optimizer step in global order; returns the new head in hex."""
        digest = hashlib.sha256(bytes.fromhex(self.head))
        digest.update(f"{step}/{position}/{','.join(map(str, skipped))}/".encode())
        digest.update(np.ascontiguousarray(row_ids, dtype="<i8").tobytes())
        self.head = digest.hexdigest()
        return self.head
