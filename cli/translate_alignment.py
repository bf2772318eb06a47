"""LLaMA-Factory's stages of alignment in our keys: `stage` with `pref_loss` name an objective, and others are read with them.

Read in LLaMA-Factory's hparams/finetuning_args.py and its trainers of dpo and kto: ipo, orpo and simpo take means over an
answer's tokens there; pref_beta is orpo's lambda; simpo_gamma is gamma itself; pref_ftx weighs the chosen answer's mean
negative log-likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
Left = list[tuple[str, str]]

KEYS = (
    "stage",
    "pref_loss",
    "pref_beta",
    "pref_ftx",
    "pref_bco_weight",
    "simpo_gamma",
    "dpo_label_smoothing",
    "kto_chosen_weight",
    "kto_rejected_weight",
    "ref_model",
)
# What LLaMA-Factory takes for a key that is not given, where it is not our default too.
_BETA, _GAMMA = 0.1, 0.5
_STAGES = {"pt": "cpt", "sft": "sft", "rm": "reward", "dpo": "dpo", "kto": "kto"}


@dataclass(frozen=True, slots=True)
class _Reads:
    """The objective of a stage and loss, and its keys there -> here; one that has no counterpart is not among them."""

    objective: str
    keys: Mapping[str, str]
    fixed: Mapping[str, Any]


_DPO = {"pref_beta": "objective.beta", "pref_ftx": "objective.nll_weight", "ref_model": "objective.reference"}
_LOSSES = {
    "sigmoid": _Reads("dpo", {**_DPO, "dpo_label_smoothing": "objective.label_smoothing"}, {}),
    "hinge": _Reads("dpo", _DPO, {"objective.loss": "hinge"}),
    "ipo": _Reads("dpo", _DPO, {"objective.loss": "ipo", "objective.length_normalised": True}),
    "orpo": _Reads("orpo", {"pref_beta": "objective.odds_weight"}, {}),
    "simpo": _Reads("simpo", {"pref_beta": "objective.beta", "simpo_gamma": "objective.gamma_beta_ratio"}, {}),
}
_KTO = _Reads(
    "kto",
    {
        "pref_beta": "objective.beta",
        "kto_chosen_weight": "objective.desirable_weight",
        "kto_rejected_weight": "objective.undesirable_weight",
        "ref_model": "objective.reference",
    },
    {},
)


def objective_of(values: Values) -> tuple[dict[str, Any], Left]:
    """Returns our keys for those of KEYS in `values`, and what could not be carried over."""
    stage = str(values.get("stage") or "sft")
    if stage not in _STAGES:
        left = [("stage", f"{stage}: we have {', '.join(sorted(_STAGES.values()))}")]
        return {}, left + [(key, f"goes with stage={stage}") for key in KEYS[1:] if values.get(key) is not None]
    reads, left = _reads(stage, values)
    found: dict[str, Any] = {"objective.name": reads.objective} if values.get("stage") is not None else {}
    found |= reads.fixed
    for key in KEYS[1:]:
        value = values.get(key)
        if value is None or key == "pref_loss":
            continue
        if key not in reads.keys:
            left += _unread(key, value, reads)
            continue
        try:
            found[reads.keys[key]] = str(value) if key == "ref_model" else float(value)
        except (TypeError, ValueError):
            left.append((key, f"{value}: not understood"))
    if reads.objective == "simpo":
        beta = found.setdefault("objective.beta", _BETA)
        found["objective.gamma_beta_ratio"] = found.get("objective.gamma_beta_ratio", _GAMMA) / beta if beta else 0.0
    return found, left


def _reads(stage: str, values: Values) -> tuple[_Reads, Left]:
    """Returns what the stage reads with its loss, and a loss that it cannot have."""
    loss = values.get("pref_loss")
    if stage == "kto":
        return _KTO, [] if loss is None else [("pref_loss", "stage=kto does not read it")]
    if stage != "dpo":
        return _Reads(_STAGES[stage], {}, {}), [] if loss is None else [("pref_loss", f"stage={stage} does not read it")]
    name = str(loss or "sigmoid")
    if name in _LOSSES:
        return _LOSSES[name], []
    if name == "kto_pair":
        return _KTO, [("pref_loss", "kto_pair: kto from pairs; objective=kto reads rows of one answer with a label: two for each pair")]
    return _LOSSES["sigmoid"], [("pref_loss", f"{name}: we have {', '.join(sorted(_LOSSES))}, and kto")]


def _unread(key: str, value: Any, reads: _Reads) -> Left:
    """Returns why a key is not carried over; nothing where its value changes nothing."""
    try:
        if float(value) == 0.0:
            return []
    except (TypeError, ValueError):
        pass
    if key == "pref_ftx" and reads.objective in ("orpo", "simpo", "kto"):
        own = "has the chosen answers' likelihood already, with weight 1" if reads.objective == "orpo" else "has no such term"
        return [(key, f"objective={reads.objective} {own}")]
    return [(key, f"no counterpart in objective={reads.objective}")]
