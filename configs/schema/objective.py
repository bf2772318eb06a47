"""`objective`: what is learned from the rows. One section for all, each key read by the objectives that its help names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from configs.schema.fields import setting

# Objectives of likelihood; the others learn from preferences, from rows with roles.
LIKELIHOOD = ("sft", "cpt")
PREFERENCE = ("dpo", "kto", "orpo", "simpo", "reward")
# Those that compare with a reference model.
REFERENCED = ("dpo", "kto")
# objective.beta=auto: the papers' own value; SimPO's is that of its experiments (arXiv 2405.14734).
BETA = {"dpo": 0.1, "kto": 0.1, "simpo": 2.0}
START = "start"

# Which objectives read a key; one that is changed for an objective that does not read it is an error.
READERS = {
    "beta": tuple(BETA),
    "loss": ("dpo",),
    "label_smoothing": ("dpo",),
    "length_normalised": ("dpo",),
    "nll_weight": ("dpo",),
    "reference": REFERENCED,
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
    "odds_weight": ("orpo",),
    "gamma_beta_ratio": ("simpo",),
    "margin_weight": ("reward",),
}


@dataclass(kw_only=True, slots=True)
class ObjectiveSection:
    name: str = setting(
        "sft",
        identity=True,
        choices=(*LIKELIHOOD, *PREFERENCE),
        help="sft: learn the assistant's tokens; cpt: learn every token; dpo, orpo, simpo: learn which of two answers is "
        "better; kto: learn from answers marked good or bad; reward: a model that scores answers.",
    )
    beta: float | str = setting(
        "auto",
        identity=True,
        help="dpo, kto, simpo: how sharply log-probabilities become preferences, more than 0; larger stays closer to the "
        "reference. With loss=ipo it is the paper's tau. auto: 0.1; 2.0 for simpo.",
    )
    loss: str = setting(
        "sigmoid",
        identity=True,
        choices=("sigmoid", "ipo", "hinge", "robust"),
        help="dpo: sigmoid (arXiv 2305.18290), ipo (2310.12036), hinge (2305.10425), robust: sigmoid, unbiased when a "
        "share label_smoothing of the pairs is the wrong way round (2403.00409).",
    )
    label_smoothing: float = setting(
        0.0,
        identity=True,
        help="dpo with loss=sigmoid or robust: share of pairs that are believed to be the wrong way round, 0 to below 0.5.",
    )
    length_normalised: bool = setting(
        False,
        identity=True,
        help="dpo: divide each answer's log-probability by its tokens (arXiv 2411.15124). With loss=ipo true is what TRL does.",
    )
    nll_weight: float = setting(
        0.0,
        identity=True,
        help="dpo: weight of the chosen answer's negative log-likelihood per token, 0 or more (arXiv 2404.19733).",
    )
    reference: str = setting(
        START,
        identity=True,
        help="dpo, kto: model to stay close to. start: the one that training starts from; or a model folder.",
    )
    desirable_weight: float = setting(1.0, identity=True, help="kto: weight of good answers, more than 0.")
    undesirable_weight: float = setting(
        1.0,
        identity=True,
        help="kto: weight of bad answers, more than 0. Balance them: good weight x count over bad weight x count, 1 to 3/2 "
        "(arXiv 2402.01306; its first version says 4/3).",
    )
    odds_weight: float = setting(0.1, identity=True, help="orpo: weight of the odds ratio beside the likelihood; the paper's lambda.")
    gamma_beta_ratio: float = setting(
        0.5,
        identity=True,
        help="simpo: by how much, in mean log-probability, the chosen answer must win: the paper's gamma over beta, 0 or more.",
    )
    margin_weight: float = setting(
        1.0, identity=True, help="reward: how much of a row's margin the chosen answer must win by, 0 or more; rows without one: 0."
    )

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        return [*self._unread(), *self._out_of_range()]

    def _unread(self) -> list[str]:
        """Returns keys that were changed though the objective does not look at them."""
        plain = {field.name: field.default for field in dataclasses.fields(self)}
        found = [
            f"objective.{key}={_spell(value)}: objective={self.name} does not read it; {' and '.join(readers)} "
            f"{'does' if len(readers) == 1 else 'do'}. Leave it out"
            for key, readers in READERS.items()
            if (value := getattr(self, key)) != plain[key] and self.name not in readers
        ]
        if self.name == "dpo" and self.label_smoothing and self.loss not in ("sigmoid", "robust"):
            found.append(
                f"objective.label_smoothing={self.label_smoothing}: objective.loss={self.loss} does not read it; "
                "sigmoid and robust do. Leave it out"
            )
        return found

    def _out_of_range(self) -> list[str]:
        found = []
        if not isinstance(self.beta, str) and self.beta <= 0:
            found.append(f"objective.beta={self.beta}: expected auto, or more than 0")
        if not 0 <= self.label_smoothing < 0.5:
            found.append(f"objective.label_smoothing={self.label_smoothing}: expected 0 <= label_smoothing < 0.5")
        elif self.loss == "robust" and not self.label_smoothing and self.name == "dpo":
            found.append(
                "objective.loss=robust: expected objective.label_smoothing, the share of pairs the wrong way round; "
                "without it it is sigmoid"
            )
        for key in ("nll_weight", "gamma_beta_ratio", "margin_weight"):
            if getattr(self, key) < 0:
                found.append(f"objective.{key}={getattr(self, key)}: expected 0 or more")
        for key in ("desirable_weight", "undesirable_weight", "odds_weight"):
            if getattr(self, key) <= 0:
                found.append(f"objective.{key}={getattr(self, key)}: expected more than 0")
        if not self.reference:
            found.append("objective.reference: empty; expected start, or a model folder")
        return found


def _spell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
