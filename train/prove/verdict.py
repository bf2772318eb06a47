"""From curves to rows of a table, and one sentence for each row that is broken: what broke, where to look."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from train.prove.cases import Case
from train.prove.reference import Curve
from train.prove.sample import Sample

# Largest relative difference of a loss or a gradient norm from the plain fp32 loop. fp32 differs by the order of sums;
# bf16 keeps 8 bits of mantissa, fp16 11, and a norm over all gradients averages their rounding.
BOUNDS = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 5e-3}
# Two differences are one and the same when they agree to this share.
SAME_SHARE = 0.01

_PLACES = {
    "loop": {
        "forward": "labels, their shift or the sum of the loss: data_pipelines/collate.py, train/scores.py, "
        "train/objectives; aisc inspect shows the labels",
        "backward": "a gradient that is lost or added on its way: train/scores.py, train/models.py, train/adapters.py",
        "update": "the update: weight decay and rates in train/optimizer.py, clipping in train/engines/{engine}.py",
    },
    "kernel": {
        "forward": "the attention kernel's output: train/attention.py; model.attention=eager goes round it",
        "backward": "the attention kernel's gradient: train/attention.py; model.attention=eager goes round it",
        "update": "the attention kernel: train/attention.py; model.attention=eager goes round it",
    },
    "packing": {
        "any": "documents of a packed row see each other: boundaries (cu_seqlens, position_ids) in "
        "data_pipelines/collate.py and train/attention.py; data.packing=false goes round it",
    },
    "mask": {
        "any": "documents of a packed row see each other under a mask: position_ids must reach the model with use_cache "
        "off, train/attention.py; model.attention=varlen goes round it",
    },
    "optimizer": {"any": "the optimizer: weight decay, betas and rates in train/optimizer.py"},
    "accumulation": {
        "forward": "the loss over several micro-batches: units counted over the whole window, train/step.py",
        "backward": "the scale of gradients over several micro-batches: units of the whole window and nothing else "
        "divides them, train/step.py",
        "update": "what is left of a micro-batch after the update, or a statistic of the window that each micro-batch takes alone: "
        "train/engines/{engine}.py, window_stats in train/objectives",
    },
    "ranks": {
        "forward": "the loss over ranks: units and sums exchanged by all, train/step.py; slices in data_pipelines/order.py",
        "backward": "the scale or the exchange of gradients between ranks: dp_size / units in train/step.py, the "
        "all-reduce in train/engines/{engine}.py",
        "update": "ranks update differently: clipping must use the norm of the exchanged gradients, "
        "train/engines/{engine}.py",
    },
    "engine": {
        "forward": "weights as the engine holds them: loading and gathering in train/engines for {engine}",
        "backward": "the engine's scale or exchange of gradients: train/engines for {engine}; engine.name=ddp goes round it",
        "update": "the engine's clipping or update: train/engines for {engine}; engine.name=ddp goes round it",
    },
    "non-finite": {"any": "a step that was not finite left something behind: discard and step in train/engines/{engine}.py"},
    "precision": {"any": "low precision: what must stay fp32 (sums, norms, masters), train/scores.py and train/engines/{engine}.py"},
    "routing": {"any": ""},
}


@dataclass(slots=True)
class Row:
    """One line of the table.

    Attributes:
        bound: for `figures`; None where there is nothing to measure by.
        is_ok: None for a row that is only shown.
        sentence: what broke and where to look; empty unless broken.
    """

    name: str
    optimizer: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    note: str = ""
    bound: float | None = None
    is_ok: bool | None = True
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case gave: one result per rank, or the error that ended it."""

    case: Case
    ranks: list[dict[str, Any]]
    error: str = ""


def relative(value: float, wanted: float) -> float:
    """Returns |value / wanted - 1|, infinite where it is no number."""
    difference = abs(value - wanted) / max(abs(wanted), 1e-12)
    return difference if math.isfinite(difference) else math.inf


def largest(one: Curve, other: Curve, key: str) -> float:
    """Returns the largest relative difference of a curve's values; infinite when one is shorter."""
    if len(one[key]) != len(other[key]):
        return math.inf
    return max(relative(a, b) for a, b in zip(one[key], other[key], strict=True))


def judge_case(outcome: Outcome, plains: dict[str, Any], earlier: dict[str, Outcome]) -> Row:
    """Returns the row of a case against the plain loop of its optimizer; `earlier` holds the cases before it."""
    case, plain = outcome.case, plains[outcome.case.optimizer]
    row = Row(case.name, case.optimizer, bound=BOUNDS[case.precision])
    if outcome.error:
        row.is_ok = False
        row.sentence = f"{case.key}: could not run: {outcome.error}"
        return row
    row.figures = {key: max(largest(rank, plain, key) for rank in outcome.ranks) for key in ("loss", "grad_norm")}
    if not case.replays:
        row.is_ok, row.note = None, "shown only: near ties between experts fall either way"
        return row
    row.is_ok = max(row.figures.values()) <= BOUNDS[case.precision]
    if case.is_spoiled:
        row.note, complaint = judge_spoiled(outcome)
        if complaint:
            row.is_ok, row.sentence = False, f"{case.name}: {complaint}: step in train/engines, applied in train/step.py"
            return row
    if not row.is_ok:
        row.sentence = f"{case.key}: {explain(outcome, plains, earlier)}"
    return row


def judge_spoiled(outcome: Outcome) -> tuple[str, str]:
    """Returns (note, what is wrong with the steps that were not finite)."""
    for number, what in enumerate(("gradient", "loss")):
        tried = [rank["spoiled"][number] for rank in outcome.ranks if len(rank["spoiled"]) > number]
        moved = sorted({name for rank in tried for name in rank["moved"]})
        if any(rank["applied"] for rank in tried):
            return "", f"a {what} that is not a number counts as a step (applied is True){_and_moved(moved)}"
        if moved:
            return "", f"a {what} that is not a number moves {_listed(moved)}"
    return "nothing moved", ""


def _and_moved(names: list[str]) -> str:
    return f" and moves {_listed(names)}" if names else ""


def explain(outcome: Outcome, plains: dict[str, Any], earlier: dict[str, Outcome]) -> str:
    """Returns what differs first, by which factor, and where to look."""
    case, plain = outcome.case, plains[outcome.case.optimizer]
    worst = max(outcome.ranks, key=lambda rank: max(largest(rank, plain, key) for key in ("loss", "grad_norm")))
    step, key, factor = first_difference(worst, plain, BOUNDS[case.precision])
    phase = ("forward" if key == "loss" else "backward") if step == 1 else "update"
    what = f"{'loss' if key == 'loss' else 'gradient norm'} of step {step} is {factor:.6g} of the plain loop's"
    for name, other in earlier.items():
        if not other.error and _is_same((step, key, factor), other, plains):
            return f"{what}, as in `{name}`"
    places = _PLACES[case.changes]
    where = places.get(phase, places.get("any", "")).format(engine=case.engine)
    return f"{what}{_meaning(factor, outcome)}: {where}"


def first_difference(curve: Curve, plain: Curve, bound: float) -> tuple[int, str, float]:
    """Returns (step from 1, `loss` or `grad_norm`, value / the plain loop's) of the first value beyond the bound."""
    for step, values in enumerate(zip(curve["loss"], curve["grad_norm"], strict=True)):
        for key, value in zip(("loss", "grad_norm"), values, strict=True):
            if relative(value, plain[key][step]) > bound:
                return step + 1, key, value / plain[key][step]
    return len(curve["loss"]), "loss", math.nan


def _is_same(difference: tuple[int, str, float], other: Outcome, plains: dict[str, Any]) -> bool:
    """True when another case's first difference from its plain loop is this one."""
    plain, bound = plains[other.case.optimizer], BOUNDS[other.case.precision]
    step, key, factor = max(
        (first_difference(rank, plain, bound) for rank in other.ranks), key=lambda found: abs(found[2] - 1)
    )
    return (step, key) == difference[:2] and relative(factor - 1, difference[2] - 1) <= SAME_SHARE


def _meaning(factor: float, outcome: Outcome) -> str:
    """Returns what the factor is, when it is a number of this case."""
    world, parts = len(outcome.ranks), int(outcome.ranks[0]["micro_batches"])
    numbers = {
        "the number of ranks": world,
        "the number of micro-batches": parts,
        "ranks times micro-batches": world * parts if min(world, parts) > 1 else 1,
    }
    for name, number in numbers.items():
        if number > 1 and math.isfinite(factor):
            if relative(factor, number) < 1e-3:
                return f" ({name})"
            if relative(factor, 1 / number) < 1e-3:
                return f" (one over {name})"
    return ""


def judge_evaluation(outcomes: Iterable[Outcome], plain: dict[str, Any]) -> Row:
    """Returns the row of held-out losses: each case's own, with dropout set, against the plain loop's without."""
    row = Row("evaluation", "each", bound=BOUNDS["fp32"])
    seen = [o for o in outcomes if not o.error and o.case.replays and o.case.precision == "fp32"]
    # A case whose weights went another way is judged in its own row.
    fair = [o for o in seen if largest(o.ranks[0], plain[o.case.optimizer], "loss") <= BOUNDS["fp32"]]
    if not fair:
        row.is_ok, row.note = None, "not judged: no case has the plain loop's losses"
        return row
    differences = {
        o.case.key: max(relative(rank["eval_loss"], plain[o.case.optimizer]["eval_loss"]) for rank in o.ranks) for o in fair
    }
    worst = max(differences, key=lambda name: differences[name], default="")
    row.figures = {"loss": differences.get(worst, math.inf)}
    row.note = f"{len(differences)} cases, dropout off"
    row.is_ok = row.figures["loss"] <= BOUNDS["fp32"]
    if not row.is_ok:
        row.sentence = (
            f"evaluation: loss after `{worst}` is off by {row.figures['loss']:.1e}: dropout must be off (module.eval()) and "
            "every held-out token count once: train/evaluate.py"
        )
    return row


def judge_movement(outcomes: Iterable[Outcome], plain: dict[str, Any]) -> Row:
    """Returns the row of weights: those that the plain loop trains move in every case, the others in none."""
    wanted = {name: set(run["moved"]) for name, run in plain.items()}
    row = Row("weights that are trained", "each", note=f"{len(next(iter(wanted.values())))} tensors move, no other does")
    for outcome in outcomes:
        # Weights in low precision may be too coarse to show a small update.
        if outcome.error or outcome.case.precision != "fp32":
            continue
        moved = {name for rank in outcome.ranks for name in rank["moved"]}
        expected = wanted[outcome.case.optimizer]
        still, loose = sorted(expected - moved), sorted(moved - expected)
        if still or loose:
            what = f"{_listed(still)} should be trained and {'does' if len(still) == 1 else 'do'} not move" if still else ""
            more = f"{_listed(loose)} should be frozen and {'moves' if len(loose) == 1 else 'move'}" if loose else ""
            row.is_ok = False
            row.note = f"{len(still)} stand still, {len(loose)} move that should not"
            row.sentence = (
                f"weights: in `{outcome.case.key}` {' and '.join(filter(None, (what, more)))}: requires_grad in "
                "train/models.py and train/adapters.py, the groups of train/optimizer.py"
            )
            break
    return row


def judge_labels(sample: Sample, objective: str) -> Row:
    """Returns the row of labels: a learned turn ends in the token that ends it."""
    row = Row("labels end with the stop token", note=f"{sample.documents_read} documents")
    if objective != "sft":
        row.name, row.is_ok, row.note = "labels", None, "every token is learned" if objective == "cpt" else "the answers are learned"
    elif sample.unended:
        row.is_ok = False
        row.note = f"{sample.unended} of {sample.documents_read} documents do not"
        row.sentence = (
            f"labels: in {row.note.replace(' do not', '')} a learned turn stops before its end-of-turn token, which the "
            "model then never learns to write: the mask in data_pipelines/tokenize.py, the chat template; aisc inspect shows it"
        )
    return row


def _listed(names: list[str], most: int = 3) -> str:
    """Returns the first names and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
