"""Cantonese text for continued pre-training: the Cantonese side of CTCPC (CC0), inside the package pycantonese.

Sentences follow one another as in the corpus, some to a document; control characters and blanks between Chinese
characters are taken out, sentences that repeat an earlier one are left out.

    TO/train.jsonl   {"text"}   objective=cpt
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from configs.atomic import sha256_file, write_file, write_json
from data_pipelines.corpora.packages import fetch

SENTENCES_PER_DOCUMENT = 8
SHORTEST = 4
_BLANKS = re.compile(r"(?<=[^\x00-\x7f])\s+|\s+(?=[^\x00-\x7f])")


def cleaned(sentence: str) -> str:
    """Returns the sentence without control characters, and without blanks beside Chinese characters."""
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Cf") else c for c in sentence)
    return _BLANKS.sub("", plain).strip()


def documents(sentences: Iterable[str]) -> Iterator[str]:
    """Yields documents of SENTENCES_PER_DOCUMENT sentences, a line each; the last may be shorter."""
    seen: set[str] = set()
    lines: list[str] = []
    for sentence in map(cleaned, sentences):
        if len(sentence) < SHORTEST or sentence in seen:
            continue
        seen.add(sentence)
        lines.append(sentence)
        if len(lines) == SENTENCES_PER_DOCUMENT:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def build(target: Path, cache: Path) -> dict[str, int]:
    """Writes `target`/train.jsonl and about.json; returns the counts."""
    path = fetch("pycantonese", cache) / "pycantonese" / "data" / "ctcpc" / "sents.json"
    sentences = json.loads(path.read_text(encoding="utf-8"))
    made = list(documents(sentences))
    target.mkdir(parents=True, exist_ok=True)
    write_file(target / "train.jsonl", "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in made))
    counts = {"sentences": len(sentences), "documents": len(made), "characters": sum(map(len, made))}
    source = "CTCPC, Cantonese side (CC0), from pycantonese 5.0.0"
    write_json(target / "about.json", {"corpus": source, "counts": counts, "sha256": sha256_file(target / "train.jsonl")})
    return counts


def main() -> None:
    """Builds the corpus from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path(".cache/demo/ctcpc"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/packages"))
    arguments = parser.parse_args()
    if (arguments.to / "about.json").is_file():
        return
    counts = build(arguments.to, arguments.cache)
    print("CTCPC: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
