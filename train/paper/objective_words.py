"""The sentence of a methods section that says what was learned, and the works to cite for it."""

from __future__ import annotations

from configs.schema.objective import START
from train.board.section import Words
from train.dossier import Dossier, Figure, model_name

_DPO = {
    "sigmoid": ("direct preference optimisation with the sigmoid loss", ("dpo",)),
    "ipo": ("direct preference optimisation with the IPO loss", ("dpo", "ipo")),
    "hinge": ("direct preference optimisation with a hinge loss on the log-ratio difference", ("dpo", "hinge")),
    "robust": ("direct preference optimisation with the noise-robust loss", ("dpo", "robust")),
}


def objective_words(dossier: Dossier) -> tuple[Words, list[str]]:
    """Returns the sentence without its full stop, and the keys of the works."""
    name, of = str(dossier.section("objective").get("name")), dossier.setting
    if name == "dpo":
        return _dpo(dossier)
    sentences: dict[str, Words] = {
        "sft": ("The loss is the mean negative log-likelihood of the assistant's tokens over the whole global batch",),
        "cpt": ("The loss is the mean negative log-likelihood of all tokens over the whole global batch",),
        "kto": (
            "The objective is KTO with beta ", of("objective.beta"), ", weights ", of("objective.desirable_weight"),
            " of wanted and ", of("objective.undesirable_weight"), " of unwanted answers, the baseline taken over the whole global batch",
        ),
        "orpo": ("The objective is ORPO with weight ", of("objective.odds_weight"), " of the odds ratio"),
        "simpo": ("The objective is SimPO with beta ", of("objective.beta"), " and a ratio of gamma to beta of ", of("objective.gamma_beta_ratio")),
        "reward": ("The objective is the Bradley-Terry loss of a reward model with weight ", of("objective.margin_weight"), " of the rows' margins"),
    }  # fmt: skip
    works = [name] if name in ("kto", "orpo", "simpo", "reward") else []
    return sentences.get(name, (f"The objective is {name}",)), works


def _dpo(dossier: Dossier) -> tuple[Words, list[str]]:
    section, of = dossier.section("objective"), dossier.setting
    words, works = _DPO.get(str(section.get("loss")), _DPO["sigmoid"])
    sentence: Words = (f"The objective is {words}, beta ", of("objective.beta"))
    cited = [*works]
    if section.get("label_smoothing"):
        sentence = (*sentence, ", label smoothing ", of("objective.label_smoothing"))
    if section.get("length_normalised"):
        sentence, cited = (
            (*sentence, ", log-probabilities divided by the answers' lengths"),
            [*cited, "length_normalised"],
        )
    if section.get("nll_weight"):
        sentence, cited = (
            (
                *sentence,
                ", with weight ",
                of("objective.nll_weight"),
                " of the chosen answer's negative log-likelihood",
            ),
            [*cited, "nll"],
        )
    return (*sentence, "; the reference model is ", _reference(dossier)), cited


def _reference(dossier: Dossier) -> Figure:
    """Returns the reference model by its name: a paper does not say where files lie on this machine."""
    path = str(dossier.section("objective").get("reference", START))
    name = "the model that training started from" if path == START else model_name(path)
    return Figure(name, f"{dossier.config_origin}: objective.reference")
