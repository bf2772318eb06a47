"""What a run remembers between two steps: plain data, saved in every checkpoint, loaded to continue."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from configs.durations import parse_duration
from configs.schema import CheckpointSection, EvaluationSection


@dataclass(slots=True)
class RunState:
    """Counters of one run. `step` counts optimizer updates, `position` global batches of the order.

    `losses` are the last ones, `spikes` the batches left out because of their loss; both empty unless `guard.spike` is on.
    """

    step: int = 0
    position: int = 0
    skip: list[int] = field(default_factory=list)
    ledger: str = ""
    tokens: int = 0
    supervised: int = 0
    evaluated_step: int = -1
    eval_loss_before: float | None = None
    eval_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    losses: list[float] = field(default_factory=list)
    spikes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunState:
        """Rebuilds the state; keys that are not its own are left alone."""
        own = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in own})

    def restore(self, values: dict[str, Any]) -> None:
        """Becomes what `to_json` of another moment of this run gave."""
        before = RunState.from_json(values)
        for own in dataclasses.fields(self):
            setattr(self, own.name, getattr(before, own.name))

    def next_position(self) -> int:
        """Returns the first position from `position` on that is not skipped."""
        position = self.position
        while position in self.skip:
            position += 1
        return position

    def skipped_before(self, position: int) -> list[int]:
        """Returns the positions that were left out on the way to `position`, which is the next one taken."""
        return [left_out for left_out in sorted(self.skip) if self.position <= left_out < position]

    def leave_out(self, positions: list[int]) -> None:
        """Puts positions on the skip list."""
        self.skip = sorted({*self.skip, *positions})

    def record_evaluation(self, eval_loss: float) -> bool:
        """Takes in the held-out loss at the current step; returns whether it is the best so far of a trained model."""
        self.evaluated_step = self.step
        self.eval_loss = eval_loss
        if self.step == 0:
            self.eval_loss_before = eval_loss
            return False
        if self.best_loss is None or eval_loss < self.best_loss:
            self.best_loss, self.best_step, self.evaluations_without_gain = eval_loss, self.step, 0
            return True
        self.evaluations_without_gain += 1
        return False


@dataclass(frozen=True, slots=True)
class Plan:
    """When things happen, in steps."""

    total_steps: int
    evaluate_every: int
    evaluate_before: bool
    save_every: int
    patience: int

    def evaluates_at(self, step: int) -> bool:
        """True when the held-out loss is due after `step` updates."""
        if step == 0:
            return self.evaluate_before
        return step % self.evaluate_every == 0 or step == self.total_steps

    def saves_at(self, step: int) -> bool:
        """True when a checkpoint is due after `step` updates."""
        return step > 0 and (step % self.save_every == 0 or step == self.total_steps)

    def is_over(self, state: RunState) -> bool:
        """True when the last step is done or the held-out loss has stopped getting better."""
        patience_is_out = 0 < self.patience <= state.evaluations_without_gain
        return state.step >= self.total_steps or patience_is_out


def interval_steps(text: str, total_steps: int) -> int:
    """Returns `10%`, `100 steps` or `end` as a number of steps, 1 to `total_steps`."""
    if text == "end":
        return total_steps
    duration = parse_duration(text)
    # Percent and steps need no row counts; other units are refused by compose.check.
    steps = duration.steps(total_steps=total_steps, rows_per_epoch=1, global_batch_size=1, sequence_length=1)
    return min(max(1, steps), max(1, total_steps))


def make_plan(total_steps: int, evaluation: EvaluationSection, checkpoint: CheckpointSection) -> Plan:
    """Returns the plan of a run of `total_steps` updates."""
    return Plan(
        total_steps=total_steps,
        evaluate_every=interval_steps(evaluation.every, total_steps),
        evaluate_before=evaluation.before,
        save_every=interval_steps(checkpoint.every, total_steps),
        patience=evaluation.patience,
    )
