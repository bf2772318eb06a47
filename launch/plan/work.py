"""What there is to compute: tokens, rows and steps of a run, evaluations and saves."""

from __future__ import annotations

from dataclasses import dataclass

from configs.durations import parse_duration
from configs.schema import RunConfig
from configs.schema.objective import REFERENCED
from launch.plan.figures import FORMULA, GIVEN, MEASURED, Figure, spell


@dataclass(frozen=True, slots=True)
class Size:
    """What training reads in one epoch.

    Attributes:
        tokens: padding left out; supervised: those that are learned.
        rows: packed rows of `sequence_length`.
        said_by: who counted or said it; empty: estimated from a sample.
        is_counted: token by token, not said by somebody.
    """

    tokens: int
    supervised: int
    rows: int
    said_by: str = ""
    is_counted: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """A run's work. Tokens leave padding out.

    Attributes:
        tokens: seen in all steps together.
        steps: optimizer updates.
        epoch_tokens: of the training data; None: not known.
        row_tokens: tokens of a row, on average.
        labelled: share of the tokens that are learned.
        held_out_tokens: of one evaluation; None: not known.
        evaluations, saves: how many of each in the whole run.
        reference_tokens: of the reference model's pass before step 1; None: not known.
    """

    tokens: Figure
    steps: Figure
    epoch_tokens: float | None
    row_tokens: float
    labelled: float
    held_out_tokens: float | None
    evaluations: int
    saves: int
    reference_tokens: float | None = 0.0

    @property
    def num_steps(self) -> int:
        return int(self.steps.value or 0)

    @property
    def seen(self) -> float | None:
        """Tokens of all steps together."""
        return self.tokens.value


def work_of(config: RunConfig, count: Size | None) -> Work | str:
    """Returns the work of a resolved configuration, or the sentence that says what is missing.

    Args:
        config: resolved.
        count: size of the data; None: not known.
    """
    training, length = config.training, config.data.sequence_length
    duration = parse_duration(training.duration)
    rows = training.global_batch_size
    if count is None and duration.unit == "epochs":
        return (
            f"training.duration={training.duration}: the size of the data is not known; give data=FILE and a tokenizer, "
            "aisc plan ... --tokens 2e9, or training.duration=\"2e9 tokens\""
        )
    if count is None:
        steps = duration.steps(total_steps=None, rows_per_epoch=0, global_batch_size=rows, sequence_length=length)
        row_tokens, labelled, basis, source = float(length), 1.0, GIVEN, "training.duration; rows taken as full, every token as learned"
    else:
        steps = duration.steps(total_steps=None, rows_per_epoch=count.rows, global_batch_size=rows, sequence_length=length)
        row_tokens, labelled = count.tokens / max(1, count.rows), count.supervised / max(1, count.tokens)
        basis = MEASURED if count.is_counted else GIVEN if count.said_by else FORMULA
        source = count.said_by or "estimated from a sample of the rows"
    seen = steps * rows * row_tokens
    held_out = _held_out(config, count)
    referenced = config.objective.name in REFERENCED
    of = f"{training.duration}" + (f" of {count.rows:,} rows" if count is not None else "")
    return Work(
        tokens=Figure(seen, "tokens", basis, f"steps x rows a step x tokens a row = {steps:,} x {rows} x {row_tokens:,.1f}", source),
        steps=Figure(steps, "steps", basis, f"{of} / {rows} rows a step, rounded up", source),
        epoch_tokens=None if count is None else float(count.tokens),
        row_tokens=row_tokens,
        labelled=labelled,
        held_out_tokens=held_out,
        evaluations=_times(config.evaluation.every, steps) + config.evaluation.before if _evaluates(config) else 0,
        saves=_times(config.checkpoint.every, steps),
        reference_tokens=0.0 if not referenced else None if count is None else count.tokens + (held_out or 0.0),
    )


def _evaluates(config: RunConfig) -> bool:
    return config.data.validation.strip().lower() != "none"


def _held_out(config: RunConfig, count: Size | None) -> float | None:
    """Returns the held-out tokens where they are a share of the training groups."""
    share = config.data.validation
    if not _evaluates(config):
        return 0.0
    if count is None or not share.endswith("%"):
        return None
    part = float(share[:-1]) / 100
    return count.tokens * part / (1 - part)


def _times(every: str, steps: int) -> int:
    if every == "end":
        return 1
    interval = parse_duration(every).steps(total_steps=steps, rows_per_epoch=0, global_batch_size=1, sequence_length=1)
    return -(-steps // max(1, interval))


def spell_tokens(work: Work) -> str:
    """Returns `2.10 B tokens`, with `estimated` where they are."""
    note = " (estimated)" if work.tokens.basis == FORMULA and "sample" in work.tokens.source else ""
    return f"{spell(work.seen)} tokens{note}"
