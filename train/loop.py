"""The training loop, readable as a table of contents. Arithmetic is in step.py, timing in state.py, files elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import nn

from configs.errors import RunFailed
from configs.jsonlines import LineFile
from configs.schema import LrSchedulerSection
from data_pipelines.index import Store
from data_pipelines.ledger import Ledger
from data_pipelines.loader import Loader
from data_pipelines.order import Order
from train import activity
from train.checkpointer import Checkpointer
from train.engines import Engine
from train.evaluate import Evaluator
from train.guards import blame_non_finite, describe_rows, find_non_finite_rows
from train.metrics import Metrics
from train.objectives import Objective, look_at_window
from train.optimizer import set_lr
from train.progress import Progress
from train.router import Router
from train.schedule import learning_rate
from train.state import Plan, RunState
from train.step import StepOutcome, train_step
from train.step_guards import StepGuards


class Ending(Enum):
    """Why the loop returned."""

    FINISHED = "finished"
    STOPPED = "stopped"


@dataclass(slots=True)
class Parts:
    """Everything the loop drives; built once, by train/run.py."""

    plan: Plan
    schedule: LrSchedulerSection
    peak_lr: float
    engine: Engine
    module: nn.Module
    objective: Objective
    router: Router | None
    optimizer: torch.optim.Optimizer
    store: Store
    order: Order
    loader: Loader
    ledger: Ledger
    ledger_file: LineFile | None
    evaluator: Evaluator | None
    before_evaluation: Callable[[int], None]
    write_replies: Callable[[int], None]
    checkpointer: Checkpointer
    metrics: Metrics
    progress: Progress
    stop_wanted: Callable[[], bool]
    guards: StepGuards


def train(parts: Parts, state: RunState) -> Ending:
    """Runs until the plan is over or a stop is asked for; `state` is advanced in place and saved on the way."""
    plan = parts.plan
    activity.begin_at(state.step)
    saved_step = state.step
    if parts.router:
        parts.router.clear()
    stopping = False
    while True:
        is_best = False
        is_measured = not plan.evaluates_at(state.step) or state.evaluated_step == state.step
        if not is_measured and not stopping:
            is_best, is_measured = evaluate(parts, state)
            stopping = not is_measured
        if is_best or ((plan.saves_at(state.step) or stopping) and saved_step != state.step):
            save(parts, state)
            saved_step = state.step
        if plan.is_over(state) or stopping:
            parts.checkpointer.wait()
            return Ending.FINISHED if plan.is_over(state) and is_measured else Ending.STOPPED
        stopping = step(parts, state)


def step(parts: Parts, state: RunState) -> bool:
    """Makes one optimizer update; returns whether some rank asks for a stop.

    Raises:
        RunFailed: the loss or the gradient norm is not finite, or jumped; weights are those of the step before.
    """
    activity.begin_step(state.step + 1)
    parts.guards.pace.begin()
    position = state.next_position()
    window = parts.loader.window(position)
    lr = learning_rate(parts.schedule, parts.peak_lr, state.step, parts.plan.total_steps)
    set_lr(parts.optimizer, lr)
    # A save that failed behind the training reaches all ranks as a wish to stop; the save at the stop then raises on all.
    stop = parts.stop_wanted() or parts.checkpointer.has_failed
    look_at_window(parts.objective, parts.module, window)
    outcome = train_step(
        parts.engine,
        parts.module,
        parts.objective,
        window,
        stop=stop,
        pace=parts.guards.pace,
        refuses=parts.guards.refusal(state),
    )
    if not outcome.applied:
        leave_out(parts, state, position, outcome)
        return outcome.stop
    row_ids = parts.order.rows(position)
    state.ledger = parts.ledger.append(state.step, position, row_ids, state.skipped_before(position))
    state.step += 1
    state.position = position + 1
    state.tokens += int(parts.store.row_tokens[row_ids].sum())
    state.supervised += outcome.units["tokens"]
    if parts.ledger_file is not None:
        parts.ledger_file.append({"step": state.step, "position": position, "head": state.ledger})
    report_step(parts, state, outcome, lr, parts.guards.after_update(state, outcome))
    return outcome.stop


def leave_out(parts: Parts, state: RunState, position: int, outcome: StepOutcome) -> None:
    """After an update that was not made: goes on without this batch where `guard.spike` says so, stops otherwise."""

    def rows() -> str:
        return describe_rows(parts.store, parts.order.rows(position).tolist())

    if outcome.overflowed:  # the same batch again, at a lower scale
        return
    step_before = state.step
    if not parts.guards.leave_out(state, position, outcome, rows):
        raise_non_finite(parts, state, position, outcome)
    if state.step != step_before:
        parts.ledger.head = state.ledger
        parts.metrics.rewind(state.step)
        if parts.ledger_file is not None:
            parts.ledger_file.keep_until(state.step)


def report_step(
    parts: Parts, state: RunState, outcome: StepOutcome, lr: float, figures: dict[str, float | int]
) -> None:
    """Hands the step's figures to metrics and progress."""
    load = parts.router.figures() if parts.router and parts.metrics.is_due(state.step) else {}
    parts.metrics.step(
        state.step,
        {
            "position": state.position - 1,
            "loss": outcome.loss,
            **({} if len(outcome.terms) == 1 else outcome.terms),
            "grad_norm": outcome.grad_norm,
            "lr": lr,
            "tokens": state.tokens,
            "supervised": state.supervised,
            **load,
            **figures,
        },
    )
    if parts.checkpointer.published is not None:
        parts.progress.saved(*parts.checkpointer.published)
    parts.progress.step(state.step, loss=outcome.loss, grad_norm=outcome.grad_norm, tokens=state.tokens)


def evaluate(parts: Parts, state: RunState) -> tuple[bool, bool]:
    """Measures the held-out loss and writes the replies.

    Returns:
        Whether it is the best so far; whether it was measured: False after a wish to stop, and the next start measures it.
    """
    if parts.evaluator is None:
        state.evaluated_step = state.step
        return False, True
    activity.enter("evaluation")
    parts.before_evaluation(state.step)
    result = parts.evaluator.run(parts.module, parts.stop_wanted)
    if result is None:
        return False, False
    activity.enter("replies")
    parts.write_replies(state.step)
    is_best = state.record_evaluation(result.loss)
    parts.metrics.evaluation(
        state.step,
        {
            "eval_loss": result.loss,
            **({f"eval_{name}": value for name, value in result.figures.items()} or {"perplexity": result.perplexity}),
            **{f"eval_loss/{source}": loss for source, loss in result.loss_by_source.items()},
        },
    )
    parts.progress.evaluated(state.step, result.loss, result.figures)
    return is_best, True


def save(parts: Parts, state: RunState) -> None:
    """Takes a checkpoint of the current step, of weights that all ranks agree about; it is written behind the training."""
    activity.enter("save")
    parts.guards.compare_weights(state.step)
    parts.checkpointer.save(state.step, parts.engine.state(), state.to_json())
    parts.metrics.save(state.step, {"save_stall_s": round(parts.checkpointer.stall_s, 4)})
    parts.progress.saving()


def raise_non_finite(parts: Parts, state: RunState, position: int, outcome: StepOutcome) -> None:
    """Names the rows that make the loss non-finite, and stops the run."""
    rows = find_non_finite_rows(parts.module, parts.store, parts.loader.window(position), parts.loader.pad_token_id)
    blame = blame_non_finite(parts.store, rows, outcome.non_finite, outcome.loss)
    raise RunFailed(
        f"step {state.step + 1}: loss {outcome.loss:.4g}, gradient norm {outcome.grad_norm:.4g} is not finite; "
        f"{blame}. Nothing was updated; the last good checkpoint is untouched."
    )
