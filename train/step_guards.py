"""What looks at every step of a run: spikes of the loss, slow ranks, replicas of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from configs.errors import RunFailed
from train.pace import Pace, Straggler
from train.replicas import HasReplicas, compare_replicas
from train.spikes import SpikePolicy
from train.state import RunState
from train.step import StepOutcome


@dataclass(slots=True)
class StepGuards:
    """The guards of one attempt.

    Attributes:
        engine: whose replicas are compared.
        weights_check: steps between two comparisons, 0: never.
        rank_names: returns `rank 1 (host n1, pid 4711)` by rank.
        roll_back: puts weights, optimizer, random state and run state back to the newest checkpoint, on every rank alike;
            False when there is none.
        event: appends to events.jsonl (rank 0), or does nothing.
        say: prints one line (rank 0), or does nothing.
    """

    pace: Pace
    spikes: SpikePolicy
    engine: HasReplicas
    weights_check: int
    rank_names: Callable[[], Mapping[int, str]]
    roll_back: Callable[[RunState], bool]
    event: Callable[..., None]
    say: Callable[[str], None]

    def refusal(self, state: RunState) -> Callable[[float], bool] | None:
        """Returns what tells a spike from a loss to learn from; None when nothing is refused."""
        if not self.spikes.is_on:
            return None
        return lambda loss: self.spikes.judge(state.losses, loss) is not None

    def after_update(self, state: RunState, outcome: StepOutcome) -> dict[str, float | int]:
        """Takes in an update; returns figures for metrics.jsonl.

        Raises:
            RunFailed: replicas differ.
        """
        self.spikes.remember(state, outcome.loss)
        if self.weights_check and state.step % self.weights_check == 0:
            self.compare_weights(state.step)
        if self.pace.rank != 0:  # only rank 0 writes and speaks
            return {}
        for straggler in self.pace.take(outcome.own_times):
            self._name_straggler(state.step, straggler)
        return self.pace.figures(outcome.own_times)

    def compare_weights(self, step: int) -> None:
        """Compares what ranks hold alike; every rank calls it.

        Raises:
            RunFailed: replicas differ.
        """
        if self.weights_check and self.pace.world > 1:
            compare_replicas(self.engine, step, self.rank_names)

    def leave_out(self, state: RunState, position: int, outcome: StepOutcome, rows: Callable[[], str]) -> bool:
        """Deals with an update that was not made, as `guard.spike` says; False when that is not its affair.

        Args:
            position: of the batch.
            rows: returns where the batch comes from, for the message.

        Raises:
            RunFailed: a spike that stops the run.
        """
        policy = self.spikes
        may_go_on = policy.action in ("skip", "rollback") and state.spikes < policy.limit
        if not outcome.refused and not may_go_on:
            return False
        why = str(policy.judge(state.losses, outcome.loss) or f"loss {outcome.loss:.4g} or its gradients are not finite")
        number = state.step + 1
        if not may_go_on:
            limit, advice = "", "guard.spike=skip leaves such a batch out"
            if policy.action != "stop":
                limit = f" It is spike number {state.spikes + 1} (guard.spike_limit={policy.limit})."
                advice = f"guard.spike_limit={policy.limit + 1} leaves it out too"
            raise RunFailed(
                f"step {number}: {why}.{limit} Nothing was updated. The batch (position {position}) holds {rows()}. "
                f"{advice}, guard.spike=off learns from it."
            )
        left_out, spikes = [position], state.spikes + 1
        is_back = policy.action == "rollback" and self.roll_back(state)
        if is_back:
            left_out = policy.positions_before(position, state.position)
        state.leave_out(left_out)
        state.spikes = spikes
        self.event("spike", step=number, loss=outcome.loss, cause=why, left_out=left_out, back_to=state.step)
        back = f"back to step {state.step}, " if is_back else ""
        self.say(f"step {number}: {why}; {back}{_spell_positions(left_out)} left out")
        return True

    def _name_straggler(self, step: int, found: Straggler) -> None:
        name = self.rank_names().get(found.rank, f"rank {found.rank}")
        own, others = round(found.own_s, 6), round(found.others_s, 6)
        self.event("straggler", step=step, rank=found.rank, name=name, step_time=own, others=others)
        self.say(
            f"slow: {name} takes {found.own_s:.3g} s a step, the others {found.others_s:.3g} s, {found.ratio:.1f} x; "
            "all wait for it"
        )


def _spell_positions(positions: list[int]) -> str:
    if len(positions) == 1:
        return f"batch {positions[0]}"
    return f"batches {positions[0]} to {positions[-1]}"


def no_event(kind: str, **fields: Any) -> None:
    """Writes nothing: for ranks above 0."""
