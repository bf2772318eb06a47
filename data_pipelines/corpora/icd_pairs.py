"""Questions on ICD-10-CM neoplasm codes with the right answer over that of a sibling code.

ICD-10-CM, April 2026 (CMS/NCHS, public domain), chapter 2, inside the package simple-icd-10-cm. Siblings share the parent
code and swap their answers: each answer is chosen once and rejected once, so answers alone, their words or their length,
say nothing of which is right. What a classifier finds nevertheless is left out, the pair with its mirror image.

A demonstration: no patient is in it, and nothing it says is medical advice.
"""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.atomic import sha256_file, write_file, write_json
from data_pipelines.corpora.oncology import NEOPLASM
from data_pipelines.corpora.packages import fetch

# A classifier solves a pair when it is this sure of the right answer on average over the repeats.
SOLVED = 0.75
_FOLDS, _REPEATS = 5, 4

Row = dict[str, Any]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Entry:
    """One code of the tabular list and what it means."""

    code: str
    meaning: str

    @property
    def category(self) -> str:
        return self.code.split(".")[0]


def read_siblings(path: Path) -> Iterator[list[Entry]]:
    """Yields the codes that have one parent, two or more and with different meanings."""
    for parent in ET.parse(path).getroot().iter("diag"):
        entries = [Entry(child.findtext("name", ""), child.findtext("desc", "")) for child in parent.findall("diag")]
        entries = [entry for entry in entries if NEOPLASM.match(entry.code)]
        different = list({entry.meaning: entry for entry in reversed(entries)}.values())[::-1]
        if len(different) > 1:
            yield different


def mirrored(siblings: list[Entry]) -> Iterator[tuple[Row, Row]]:
    """Yields pairs with their mirror images: of two siblings that follow one another, each on both kinds of question."""
    for one, other in zip(siblings[::2], siblings[1::2], strict=False):
        yield _on_meaning(one, other), _on_meaning(other, one)
        yield _on_code(one, other), _on_code(other, one)


def _on_meaning(right: Entry, wrong: Entry) -> Row:
    question = f"What does ICD-10-CM code {right.code} mean?"
    return _row(question, f"{right.meaning}.", f"{wrong.meaning}.", right.category)


def _on_code(right: Entry, wrong: Entry) -> Row:
    question = f"Which ICD-10-CM code means: {right.meaning}?"
    return _row(question, f"{right.code}.", f"{wrong.code}.", right.category)


def _row(question: str, chosen: str, rejected: str, category: str) -> Row:
    return {"prompt": question, "chosen": chosen, "rejected": rejected, "category": category}


def bag_of_words(rows: list[Row]) -> Any:
    """Returns how often each word is in the chosen answer less in the rejected one, and so for words of the question."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import CountVectorizer  # type: ignore[import-untyped]

    answers = [row[name] for name in ("chosen", "rejected") for row in rows]
    words = CountVectorizer(token_pattern=r"\w+").fit(answers).transform(answers)
    asked = CountVectorizer(token_pattern=r"\w+", binary=True).fit(answers).transform([row["prompt"] for row in rows])
    size = len(rows)
    # A word that the question has too counts once more, on its own.
    return hstack([words[:size] - words[size:], asked.multiply(words[:size]) - asked.multiply(words[size:])]).tocsr()


def length_only(rows: list[Row]) -> Float64:
    """Returns by how many characters the chosen answer is longer, `[n, 1]`."""
    return np.array([[float(len(row["chosen"]) - len(row["rejected"]))] for row in rows])


def sureness(features: Any, categories: list[str], seed: int) -> Float64:
    """Returns how probable a logistic regression finds each chosen answer, fitted without the pair's category. `[n]`"""
    from sklearn.model_selection import GroupKFold  # type: ignore[import-untyped]

    found = np.zeros(len(categories))
    for fitted, asked in GroupKFold(_FOLDS, shuffle=True, random_state=seed).split(categories, groups=categories):
        found[asked] = fitted_sureness(features, fitted, asked)
    return found


def fitted_sureness(features: Any, fitted: NDArray[np.int64], asked: NDArray[np.int64]) -> Float64:
    """Returns how probable a logistic regression, fitted on rows `fitted`, finds the chosen answers of rows `asked`."""
    from scipy.sparse import issparse, vstack
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    stack = vstack if issparse(features) else np.concatenate
    mine = features[fitted]
    # Both orders of each pair, so that the order itself says nothing.
    labels = np.repeat([1, 0], len(fitted))
    model = LogisticRegression(fit_intercept=False, max_iter=300).fit(stack([mine, -mine]), labels)
    sure: Float64 = model.predict_proba(features[asked])[:, 1]
    return sure


def measure(rows: list[Row]) -> dict[str, Float64]:
    """Returns the mean sureness of each classifier over the repeats, `[n]`."""
    categories = [row["category"] for row in rows]
    made = {"bag of words": bag_of_words(rows), "length": length_only(rows)}
    return {name: np.mean([sureness(x, categories, seed) for seed in range(_REPEATS)], axis=0) for name, x in made.items()}


def accuracy(sure: Float64) -> float:
    """Returns the share of pairs that are solved; half a pair where the classifier cannot decide."""
    return float(np.mean((sure > 0.5) + 0.5 * (sure == 0.5)))


def without_solved(rows: list[Row]) -> tuple[list[Row], dict[str, Any]]:
    """Returns the pairs that no classifier solves, and the counts; `rows` holds pairs and mirror images in turn.

    The mirror image goes with its pair: what is left would be solved the other way round.
    """
    before = measure(rows)
    solved = {name: sure >= SOLVED for name, sure in before.items()}
    drop = np.any(list(solved.values()), axis=0).reshape(-1, 2).any(axis=1).repeat(2)
    kept = [row for row, out in zip(rows, drop, strict=True) if not out]
    after = measure(kept) if kept else {}
    report = {
        "pairs": len(rows),
        "solved": {name: int(found.sum()) for name, found in solved.items()},
        "left out with their mirror images": int(drop.sum()),
        "kept": len(kept),
        "categories": len({row["category"] for row in kept}),
        "accuracy before": {name: round(accuracy(sure), 4) for name, sure in before.items()},
        "accuracy after": {name: round(accuracy(sure), 4) for name, sure in after.items()},
    }
    return kept, report


def build(target: Path, cache: Path, *, num_pairs: int | None = None) -> dict[str, Any]:
    """Writes `target`/train.jsonl and about.json; returns the counts. data.group_by=category divides them.

    With `num_pairs`, about so many of the pairs, spread over all categories, each with its mirror image.
    """
    path = next((fetch("simple-icd-10-cm", cache) / "simple_icd_10_cm" / "data").glob("*.xml"))
    rows = [row for siblings in read_siblings(path) for two in mirrored(siblings) for row in two]
    kept, report = without_solved(rows)
    if num_pairs is not None:
        step = max(1, len(kept) // num_pairs)
        kept = [row for number, row in enumerate(kept) if number // 2 % step == 0]
        report["written"] = len(kept)
    target.mkdir(parents=True, exist_ok=True)
    write_file(target / "train.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    source = "ICD-10-CM April 2026 from simple-icd-10-cm 1.5.0 (public domain)"
    write_json(target / "about.json", {"corpus": source, "counts": report, "sha256": sha256_file(target / "train.jsonl")})
    return report


def main() -> None:
    """Builds the corpus from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path(".cache/demo/icd_pairs"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/packages"))
    parser.add_argument("--pairs", type=int, help="about so many of them; all without it")
    arguments = parser.parse_args()
    if (arguments.to / "about.json").is_file():
        return
    report = build(arguments.to, arguments.cache, num_pairs=arguments.pairs)
    print("ICD pairs: " + json.dumps(report))


if __name__ == "__main__":
    main()
