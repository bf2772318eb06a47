"""`sweep`: what `-m` does with a run's points: how many at once, and whether they are searched instead of listed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from configs.schema.fields import setting


@dataclass(kw_only=True, slots=True)
class SweepSection:
    space: dict[str, Any] = setting(
        factory=dict,
        identity=False,
        help="Swept keys and their values, `{optimizer.lr: [5e-5, 1e-4]}`, used with -m; what the command line gives wins.",
    )
    throttle: int = setting(4, identity=False, help="Points that run at once in the queue, 1 or more; on this machine they run one after another.")
    trials: int = setting(0, identity=False, help="Runs of a search (extra: sweep); 0: no search, every point of the grid.")
    sampler: str = setting("tpe", identity=False, choices=("tpe", "random"), help="How a search picks values (Optuna's names).")
    pruner: str = setting(
        "median",
        identity=False,
        choices=("median", "none"),
        help="median: end a trial whose best eval_loss is above the median of the others at the same step.",
    )
    seed: int = setting(1, identity=False, help="Seed of a search: the same one proposes the same trials, 0 or more.")

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        bounds = {"throttle": (1, None), "trials": (0, None), "seed": (0, 40_000)}
        found = []
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if value < least or (most is not None and value > most):
                expected = f"{least} to {most:,}" if most is not None else f"{least} or more"
                found.append(f"sweep.{name}={value}: expected {expected}")
        return found
