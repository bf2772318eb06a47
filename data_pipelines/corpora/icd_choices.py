"""ICD coding as multiple choice: the meaning of a neoplasm code, and which of sibling codes it is. Data of task `icd_coding`.

ICD-10-CM, April 2026 (CMS/NCHS, public domain), chapter 2, inside the package simple-icd-10-cm. The choices share the
parent code, so the category alone decides nothing. A fixed part of the categories is taken, by a hash of their names:
whoever trains on the other categories has not seen these questions' answers.

A demonstration of coding knowledge: no patient is in it, and it is no medical advice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.atomic import sha256_file, write_file, write_json
from data_pipelines.corpora.icd_pairs import Entry, read_siblings
from data_pipelines.corpora.packages import fetch

CHOICES = 4
# One in so many categories is for evaluation.
EVERY = 5

Row = dict[str, Any]


def is_for_evaluation(category: str) -> bool:
    """True for the categories (`C34`) whose codes are asked; training data should leave them out."""
    return int(hashlib.sha256(category.encode()).hexdigest(), 16) % EVERY == 0


def questions(siblings: list[Entry]) -> Iterator[Row]:
    """Yields a question per code with up to three siblings as wrong choices; the right one's place is drawn by its name."""
    for right in siblings:
        draw = random.Random(right.code)
        others = [entry.code for entry in siblings if entry.code != right.code]
        choices = [right.code, *draw.sample(others, min(CHOICES - 1, len(others)))]
        draw.shuffle(choices)
        yield {
            "id": right.code,
            "question": f"Which ICD-10-CM code means: {right.meaning}?",
            "choices": choices,
            "answer": choices.index(right.code),
            "category": right.category,
        }


def build(target: Path, cache: Path) -> dict[str, int]:
    """Writes `target`/test.jsonl and about.json; returns the counts."""
    path = next((fetch("simple-icd-10-cm", cache) / "simple_icd_10_cm" / "data").glob("*.xml"))
    rows = [row for siblings in read_siblings(path) for row in questions(siblings) if is_for_evaluation(row["category"])]
    target.mkdir(parents=True, exist_ok=True)
    write_file(target / "test.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    counts = {"questions": len(rows), "categories": len({row["category"] for row in rows})}
    counts |= {f"of {n} choices": sum(len(row["choices"]) == n for row in rows) for n in range(2, CHOICES + 1)}
    source = "ICD-10-CM April 2026 from simple-icd-10-cm 1.5.0 (public domain)"
    write_json(target / "about.json", {"corpus": source, "counts": counts, "sha256": sha256_file(target / "test.jsonl")})
    return counts


def main() -> None:
    """Builds the questions from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path(".cache/demo/icd_choices"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/packages"))
    arguments = parser.parse_args()
    if (arguments.to / "about.json").is_file():
        return
    print("ICD choices: " + json.dumps(build(arguments.to, arguments.cache)))


if __name__ == "__main__":
    main()
