"""`aisc` with a fault planted in one rank:  python -m tests.faults.planted KIND RANK STEP train ...

Kinds: exception, stuck (a wait that never ends), slow (a pause in every step from STEP on), non_finite (a gradient
becomes NaN), silent (one bit of a weight flips), memory (an allocation that cannot be met), late (an exception in the
rehearsal, before there is an attempt).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

PAUSE_S = 0.05


def flip_bit(engine: Any) -> None:
    """Flips the lowest bit of the first weight's first value."""
    import torch

    first = next(iter(engine.replicas().values()))
    first.view(-1)[:1].view(torch.int32).bitwise_xor_(1)


def raise_error(engine: Any) -> None:
    """Raises what nobody expects."""
    raise ZeroDivisionError("planted")


def fill_memory(engine: Any) -> None:
    """Asks for more than any machine has."""
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)


FAULTS: dict[str, Callable[[Any], Any]] = {
    "exception": raise_error,
    "stuck": lambda engine: threading.Event().wait(),
    "memory": fill_memory,
    "silent": flip_bit,
    "slow": lambda engine: threading.Event().wait(PAUSE_S),
}


def plant(kind: str, step: int) -> None:
    """Makes the fault happen in this process in update number `step`, after the units were exchanged."""
    from train import activity, learner
    from train.engines.ddp import DdpEngine

    if kind == "late":
        learner.rehearse = lambda *_: raise_error(None)  # type: ignore[assignment]
        return
    plain = DdpEngine.micro_batch

    def micro_batch(self: DdpEngine, last: bool) -> Any:
        number = activity.CURRENT.step
        if number == step or (kind == "slow" and number > step):
            FAULTS[kind](self)
        return plain(self, last)

    DdpEngine.micro_batch = micro_batch  # type: ignore[method-assign]


def main() -> int:
    """Plants, then is `aisc`."""
    kind, rank, step, *arguments = sys.argv[1:]
    if os.environ.get("RANK") == rank:
        plant(kind, int(step))
    from cli.main import main as aisc

    return aisc(arguments)


if __name__ == "__main__":
    sys.exit(main())
