"""Which arrangements of the same few steps are compared, in the order in which a mistake shows first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from configs.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Case:
    """One arrangement.

    Attributes:
        name: as shown.
        changes: what it adds to the cases before it; says where to look when it alone is wrong.
        optimizer: `sgd`, which shows a wrong scale that Adam hides, or the user's.
        world: ranks; micro_rows: rows at once on a rank, 0 for all that it has.
        is_spoiled: two steps with a gradient and a loss that are not finite come in between, and must change nothing.
        replays: experts are chosen as in the plain loop.
    """

    name: str
    changes: str
    optimizer: str
    engine: str
    attention: str
    world: int = 1
    micro_rows: int = 0
    packing: bool = True
    precision: str = "fp32"
    is_spoiled: bool = False
    replays: bool = True

    @property
    def key(self) -> str:
        """Name and optimizer: unique."""
        return f"{self.name} / {self.optimizer}"


def make_cases(config: RunConfig, *, kernel: str, exact_kernel: str, worlds: list[int], is_mixture: bool) -> list[Case]:
    """Returns the cases for a resolved configuration.

    Args:
        config: the user's.
        kernel: its attention; exact_kernel: the one for fp32, which FlashAttention does not compute.
        worlds: numbers of ranks above one.
        is_mixture: tokens are routed to experts.
    """
    mine, engine = config.optimizer.name, config.engine.name
    plain: dict[str, Any] = {"optimizer": "sgd", "engine": "ddp", "attention": exact_kernel}
    cases = [Case("eager attention, one document a row", "loop", **{**plain, "attention": "eager"}, packing=False)]
    if exact_kernel != "eager":
        cases.append(Case(f"{exact_kernel} attention, one document a row", "kernel", **plain, packing=False))
    cases.append(Case("packed rows", "packing", **plain))
    cases.append(Case("packed rows", "optimizer", **{**plain, "optimizer": mine}))
    if exact_kernel == "varlen":
        cases.append(Case("packed rows, sdpa with a mask", "mask", **{**plain, "attention": "sdpa"}))
    cases.append(Case("micro-batches of one row", "accumulation", **plain, micro_rows=1))
    for world in worlds:
        cases.append(Case(f"{world} ranks", "ranks", **plain, world=world))
        cases.append(Case(f"{world} ranks, micro-batches of one row", "ranks", **{**plain, "optimizer": mine}, world=world, micro_rows=1))
    if engine != "ddp":
        for world in worlds or [1]:
            parts = {**plain, "engine": engine, "world": world}
            cases.append(Case(f"{engine}, {world} ranks", "engine", **parts))
            cases.append(Case(f"{engine}, {world} ranks", "engine", **{**parts, "optimizer": mine}))
            cases.append(Case(f"{engine}, {world} ranks, micro-batches of one row", "engine", **parts, micro_rows=1))
    # With the user's optimizer: its state must not move either.
    last = {**plain, "optimizer": mine, "engine": engine, "world": max(worlds, default=1)}
    cases.append(Case("around steps that are not finite", "non-finite", **last, is_spoiled=True))
    if config.training.precision != "fp32":
        asked = {**last, "attention": kernel, "precision": config.training.precision}
        cases.append(Case(f"{config.training.precision}, as configured", "precision", **asked))
    if is_mixture:
        cases.append(Case("packed rows, experts chosen freely", "routing", **plain, replays=False))
    return [case for number, case in enumerate(cases) if case.key not in {earlier.key for earlier in cases[:number]}]
