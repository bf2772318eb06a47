"""A preference with a rule behind it: the same Cantonese sentence in Traditional script over Simplified script.

Sentences of the Hong Kong Cantonese Corpus (Luke and Wong 2015, CC BY 4.0) and of CTCPC (CC0), both inside the package
pycantonese; the rejected answer is the sentence converted by OpenCC (t2s). Both answers have the same number of
characters (with --tokenizer, of that tokenizer's tokens too), and no request says which script is wanted, so that only the
script tells them apart.

    TO/pairs/{train,held_out}.jsonl   {"prompt", "chosen", "rejected"}   dpo, orpo, simpo, reward
    TO/kto/{train,held_out}.jsonl     {"prompt", "completion", "label"}  kto: both answers, each with its label

A sentence is on one side only: which one, and which request it gets, is a hash of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.atomic import sha256_file, write_file, write_json
from data_pipelines.corpora.hkcancor import read_turns
from data_pipelines.corpora.packages import fetch

# Written with characters that both scripts share, or in English: the request must not give the script away.
REQUESTS = (
    "Write one sentence in Chinese.",
    "Say something in Chinese, in one sentence.",
    "One Chinese sentence, please.",
    "用中文造句。",
    "用中文作一句。",
)
SHORTEST, LONGEST = 6, 30
# Characters that the scripts write differently; one alone could be a variant.
LEAST_DIFFERENT = 2
HELD_OUT_SHARE = 0.1
NUM_PAIRS = 4000
_SENTENCE = re.compile(r"[\u4e00-\u9fff，。！？、；：]+")
_ENDS = re.compile(r"(?<=[。！？])")
_PUNCTUATION = re.compile(r"[，。！？、；：]")

Row = dict[str, Any]


@dataclass(slots=True)
class Counts:
    """What became of the sentences: read, and left out in this order."""

    sentences: int = 0
    other_characters_or_length: int = 0
    repeated: int = 0
    simplified_characters: int = 0
    other_length_once_converted: int = 0
    too_alike: int = 0
    other_number_of_tokens: int = 0
    not_sampled: int = 0
    train: int = 0
    held_out: int = 0


@dataclass(frozen=True, slots=True)
class Scripts:
    """OpenCC's conversions; `to_traditional` finds sentences that are not in Traditional script to begin with."""

    to_simplified: Any
    to_traditional: Any

    @classmethod
    def load(cls) -> Scripts:
        from opencc import OpenCC

        return cls(OpenCC("t2s"), OpenCC("s2t"))

    def has_simplified(self, sentence: str) -> bool:
        """Returns whether a character is one that only Simplified script writes so."""
        return any(
            self.to_simplified.convert(c) == c != self.to_traditional.convert(c) for c in dict.fromkeys(sentence)
        )


def read_sentences(package: Path) -> Iterator[str]:
    """Yields the sentences of both corpora, blanks removed."""
    data = package / "pycantonese" / "data"
    for path in sorted((data / "hkcancor").glob("*.cha")):
        for _, text in read_turns(path):
            # Words are divided by blanks, and so are the corpus's ASCII signs from the words.
            yield from _ENDS.split(text.replace(".", "。").replace("?", "？").replace("!", "！").replace(",", "，"))
    for text in json.loads((data / "ctcpc" / "sents.json").read_text(encoding="utf-8")):
        yield re.sub(r"\s", "", text)


def pairs(
    sentences: Iterable[str], scripts: Scripts, counts: Counts, num_tokens: Callable[[str], int] = len
) -> Iterator[tuple[str, str]]:
    """Yields (sentence, the same in Simplified script) for the sentences that can be told apart by script alone."""
    seen: set[str] = set()
    for sentence in sentences:
        counts.sentences += 1
        if not SHORTEST <= len(sentence) <= LONGEST or not _SENTENCE.fullmatch(sentence):
            counts.other_characters_or_length += 1
            continue
        key = _PUNCTUATION.sub("", sentence)
        if key in seen:
            counts.repeated += 1
            continue
        seen.add(key)
        simplified = scripts.to_simplified.convert(sentence)
        if len(simplified) != len(sentence):
            counts.other_length_once_converted += 1
        elif sum(a != b for a, b in zip(sentence, simplified, strict=True)) < LEAST_DIFFERENT:
            counts.too_alike += 1
        elif scripts.has_simplified(sentence):
            counts.simplified_characters += 1
        elif num_tokens(sentence) != num_tokens(simplified):
            counts.other_number_of_tokens += 1
        else:
            yield sentence, simplified


def digest(sentence: str, use: str) -> int:
    """Returns a number below 2^64 that only the sentence without its punctuation, and its use, decide."""
    key = f"{use}:{_PUNCTUATION.sub('', sentence)}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def request_for(sentence: str) -> str:
    """Returns the request that the sentence answers."""
    return REQUESTS[digest(sentence, "request") % len(REQUESTS)]


def is_held_out(sentence: str) -> bool:
    """Returns whether the sentence, in either script, is held out."""
    return digest(sentence, "split") < HELD_OUT_SHARE * 2**64


def labelled(rows: Iterable[Row]) -> list[Row]:
    """Returns both answers of every pair as rows with a label, in an order that a hash of each decides."""
    made = [
        {"prompt": row["prompt"], "completion": row[answer], "label": answer == "chosen"}
        for row in rows
        for answer in ("chosen", "rejected")
    ]
    return sorted(made, key=lambda row: digest(str(row["completion"]), "order"))


def counter(tokenizer: Path | None) -> Callable[[str], int]:
    """Returns what counts the tokens of a text; characters without a tokenizer's folder."""
    if tokenizer is None:
        return len
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    return lambda text: len(backend.encode(text, add_special_tokens=False).ids)


def build(target: Path, cache: Path, *, num_pairs: int = NUM_PAIRS, tokenizer: Path | None = None) -> Counts:
    """Writes the files of `target` and about.json; returns the counts."""
    counts = Counts()
    sentences = read_sentences(fetch("pycantonese", cache))
    found = list(pairs(sentences, Scripts.load(), counts, counter(tokenizer)))
    found.sort(key=lambda pair: digest(pair[0], "order"))
    counts.not_sampled = max(0, len(found) - num_pairs)
    sides: dict[str, list[Row]] = {"train": [], "held_out": []}
    for chosen, rejected in found[:num_pairs]:
        side = "held_out" if is_held_out(chosen) else "train"
        sides[side].append({"prompt": request_for(chosen), "chosen": chosen, "rejected": rejected})
    counts.train, counts.held_out = len(sides["train"]), len(sides["held_out"])
    hashes = {}
    for side, rows in sides.items():
        for form, made in (("pairs", rows), ("kto", labelled(rows))):
            path = target / form / f"{side}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made))
            hashes[f"{form}/{side}.jsonl"] = sha256_file(path)
    sources = "HKCanCor (Luke and Wong 2015, CC BY 4.0) and CTCPC (CC0) from pycantonese 5.0.0; Simplified by OpenCC t2s"
    write_json(target / "about.json", {"corpus": sources, "counts": asdict(counts), "sha256": hashes})
    return counts


def main() -> None:
    """Builds the corpus from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path(".cache/demo/script_pairs"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/packages"))
    parser.add_argument("--pairs", type=int, default=NUM_PAIRS)
    parser.add_argument("--tokenizer", type=Path, help="folder; keep pairs of equally many of its tokens")
    arguments = parser.parse_args()
    if (arguments.to / "about.json").is_file():
        return
    counts = build(arguments.to, arguments.cache, num_pairs=arguments.pairs, tokenizer=arguments.tokenizer)
    print("script pairs: " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in asdict(counts).items()))


if __name__ == "__main__":
    main()
