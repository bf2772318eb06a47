"""Dynamic loss scaling for fp16 (arXiv 1710.03740): gradients below 6e-8 would vanish, so the loss is scaled up.

torch.amp.GradScaler decides by each rank's own gradients; with sharded ones, ranks would disagree. Here the global
gradient norm decides, which all ranks share.
"""

from __future__ import annotations

from dataclasses import dataclass

INITIAL = 2.0**16
GROWTH_EVERY = 2000


@dataclass(slots=True)
class LossScale:
    """The factor on the loss; 1 and constant unless the arithmetic is fp16."""

    is_dynamic: bool
    value: float = 1.0
    good_steps: int = 0

    @classmethod
    def of(cls, precision: str) -> LossScale:
        """Returns the scale for a precision."""
        return cls(True, INITIAL) if precision == "fp16" else cls(False)

    def accepted(self) -> None:
        """Notes an update with finite gradients; doubles the scale after 2,000 in a row."""
        self.good_steps += 1
        if self.is_dynamic and self.good_steps % GROWTH_EVERY == 0:
            self.value *= 2.0

    def overflowed(self) -> bool:
        """Halves the scale after gradients that are not finite; False when scaling is not to blame."""
        self.good_steps = 0
        if not self.is_dynamic or self.value <= 1.0:
            return False
        self.value /= 2.0
        return True
