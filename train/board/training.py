"""The training in plain words: how long, how much was shown, how it went, under which settings."""

from __future__ import annotations

from train.board.charts import loss_chart
from train.board.section import BoardSection, Chart, Words
from train.dossier import MANIFEST, RESULT, Dossier, Figure

SETTINGS = (
    ("Method of adaptation", "adapter.name"),
    ("Highest learning rate", "optimizer.lr"),
    ("Optimizer", "optimizer.name"),
    ("Rows per step", "training.global_batch_size"),
    ("Tokens in a row", "data.sequence_length"),
    ("Precision", "training.precision"),
    ("Seed of all chance", "training.seed"),
)


def section(dossier: Dossier) -> BoardSection:
    """Returns the story of the training, its curve and its settings."""
    sentences: list[Words] = []
    missing = []
    result = dossier.result
    if result:
        sentences.append(
            (
                "The weights were adjusted in ",
                _of(dossier, "steps"),
                " steps. In all of them together the model was shown ",
                _of(dossier, "tokens"),
                " tokens (pieces of words), and its error was measured on ",
                _of(dossier, "supervised"),
                " of these. The weights that are released are those of step ",
                _of(dossier, "best_step"),
                ", the best on held-out data.",
            )
        )
        ledger = Figure(str(result["ledger"])[:16], f"{RESULT}: ledger")
        sentences.append(
            ("Which rows were used at which step is recorded in a chain of hashes that ends with ", ledger, ".")
        )
        if result["attempts"] > 1:
            sentences.append(
                (
                    "The training was started ",
                    _of(dossier, "attempts"),
                    " times, each time where it had last been saved.",
                )
            )
    else:
        missing.append("The run has not finished: there is no result, and the figures here are of a part of it.")
    facts: list[tuple[str, Words]] = [(label, (dossier.setting(key),)) for label, key in SETTINGS]
    commit = dossier.manifest.get("commit")
    facts.append(
        (
            "Software",
            (Figure(str(commit or "installed package"), f"{MANIFEST}: commit"),) if dossier.manifest else ("-",),
        )
    )
    return BoardSection(
        "How it was trained",
        "訓練過程",
        sentences=tuple(sentences) or ((missing[0],),),
        facts=tuple(facts),
        charts=tuple(Chart(*made) for made in [loss_chart(dossier)] if made),
        missing=tuple(missing),
    )


def _of(dossier: Dossier, key: str) -> Figure:
    value = dossier.result.get(key)
    return Figure("-" if value is None else f"{value:,}", f"{RESULT}: {key}")
