"""What the model is for and what it is not for: the project's own words, and what follows from how it was made."""

from __future__ import annotations

from pathlib import Path

from train.board.section import BoardSection, Words
from train.dossier import RESULT, Dossier, Figure, model_name

# The project's own words, as plain text in the run folder; paragraphs are separated by empty lines.
PURPOSE = "purpose.md"
TAUGHT = {
    "sft": "by examples of questions and the answers wanted (supervised fine-tuning)",
    "cpt": "by reading texts (continued pre-training)",
    "dpo": "by pairs of answers, one preferred to the other (direct preference optimisation)",
    "kto": "by answers marked as wanted or unwanted (Kahneman-Tversky optimisation)",
    "orpo": "by pairs of answers, one preferred to the other (odds-ratio preference optimisation)",
    "simpo": "by pairs of answers, one preferred to the other (simple preference optimisation)",
    "reward": "to score answers, from pairs of which one is preferred (a reward model: it does not write)",
}


def section(dossier: Dossier) -> BoardSection:
    """Returns purpose and bounds."""
    own = _own_words(dossier.path / PURPOSE)
    missing = (
        ()
        if own
        else (f"The purpose and the people who may use the model are not stated: the run folder has no {PURPOSE}.",)
    )
    return BoardSection(
        "What the model is for, and what it is not",
        "模型用途與不適用範圍",
        sentences=own,
        facts=_facts(dossier),
        points=(
            (
                "It is not for any task that section 6 does not measure; good figures there do not carry over to others.",
            ),
            (
                "It is not a medical device and this page does not make it one: what it writes is no diagnosis, advice or order.",
            ),
            ("It is not to be used without a person who answers for each decision that it takes part in.",),
            ("It is not to be given data of persons beyond what its data (sections 2 and 3) were permitted for.",),
        ),
        missing=missing,
    )


def _own_words(path: Path) -> tuple[Words, ...]:
    if not path.is_file():
        return ()
    text = path.read_text(encoding="utf-8")
    paragraphs = [" ".join(part.split()).lstrip("# ") for part in text.split("\n\n")]
    return tuple((Figure(paragraph, f"{PURPOSE}: the project's words"),) for paragraph in paragraphs if paragraph)


def _facts(dossier: Dossier) -> tuple[tuple[str, Words], ...]:
    objective = dossier.setting("objective.name")
    base = dossier.section("model").get("path")
    kind, where = dossier.result.get("model_kind"), f"{RESULT}: model_kind"
    if dossier.released is not None and (model := dossier.released / "model").is_dir():
        # A release may have the adapter merged.
        kind, where = (
            ("adapter" if (model / "adapter_config.json").exists() else "whole"),
            "files of model/ in the release",
        )
    started: Words = (
        (Figure(model_name(str(base)), f"{dossier.config_origin}: model.path"),) if base else ("random weights",)
    )
    what = (
        ": small added weights, used together with the starting model" if kind == "adapter" else " model: all weights"
    )
    released: Words = (Figure(str(kind), where), what) if kind else ("nothing yet: the run has no result",)
    return (
        ("Model", (Figure(dossier.name, "name of the run folder"),)),
        ("State of the run", (Figure(str(dossier.status), "attempts/*/exit.json: state, cause"),)),
        ("Started from", started),
        ("Taught", (Figure(TAUGHT.get(objective.text, objective.text), objective.origin),)),
        ("What is released", released),
    )
