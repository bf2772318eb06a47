"""The Hong Kong Cantonese Corpus as chats: real conversations and radio talk of the 1990s.

Luke, K. K. and Wong, M. L. Y. (2015), "The Hong Kong Cantonese Corpus: Design and Uses", Journal of Chinese
Linguistics. CC BY 4.0; shipped inside the package pycantonese.

Each conversation is cut into windows. In a window the speaker of the last turn is the assistant, everybody else the
user; consecutive turns of one role are merged.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.atomic import sha256_file, write_file, write_json
from data_pipelines.corpora.packages import fetch
from data_pipelines.tokenize import load_tokenizer

# Text tokens of a window, each turn counted with the 8 tokens that its template markers take at most; with the system
# prompt a window then stays within 512.
WINDOW_TOKENS = 440
TURN_OVERHEAD = 8

Turn = tuple[str, str]


@dataclass(slots=True)
class Counts:
    """What became of the corpus."""

    conversations: int = 0
    turns: int = 0
    windows: int = 0
    turns_too_long: int = 0
    windows_of_one_turn: int = 0


def read_turns(path: Path, shuffle_seed: int | None = None) -> list[Turn]:
    """Returns (speaker, text) of a CHAT file, consecutive utterances of one speaker joined, word spaces removed.

    With `shuffle_seed` the words of each utterance come in random order: the control of the demonstration.
    """
    draw = random.Random(f"{shuffle_seed}/{path.name}")
    turns: list[Turn] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("*") or ":\t" not in line:
            continue
        speaker, _, utterance = line[1:].partition(":\t")
        words = utterance.split()
        if shuffle_seed is not None:
            draw.shuffle(words)
        text = "".join(words)
        if turns and turns[-1][0] == speaker:
            turns[-1] = (speaker, turns[-1][1] + text)
        else:
            turns.append((speaker, text))
    return turns


def windows(turns: list[Turn], num_tokens: Callable[[str], int], counts: Counts) -> Iterator[list[Turn]]:
    """Yields runs of two or more turns of at most 440 tokens; a longer turn closes the window and is left out."""
    window: list[Turn] = []
    used = 0
    for speaker, text in [*turns, ("", "")]:
        size = num_tokens(text) + TURN_OVERHEAD
        too_long = size > WINDOW_TOKENS
        if not speaker or too_long or used + size > WINDOW_TOKENS:
            if len(window) >= 2:
                yield window
            else:
                counts.windows_of_one_turn += len(window)
            window, used = [], 0
        if too_long:
            counts.turns_too_long += 1
        elif speaker:
            window.append((speaker, text))
            used += size


def as_chat(window: list[Turn]) -> list[dict[str, str]]:
    """Returns chat messages: the last turn's speaker is the assistant, neighbours of one role are merged."""
    assistant = window[-1][0]
    messages: list[dict[str, str]] = []
    for speaker, text in window:
        role = "assistant" if speaker == assistant else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += text
        else:
            messages.append({"role": role, "content": text})
    return messages


def build(target: Path, tokenizer_path: Path, cache: Path, *, shuffled_seed: int | None = None) -> Counts:
    """Writes `target`/train.jsonl, about.json, and prompts.jsonl: an opening of each conversation; returns the counts."""
    source = fetch("pycantonese", cache) / "pycantonese" / "data" / "hkcancor"
    tokenizer: Any = load_tokenizer(str(tokenizer_path))
    counts = Counts()
    lines, prompts = [], []

    def num_tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    for path in sorted(source.glob("*.cha")):
        turns = read_turns(path, shuffled_seed)
        counts.conversations += 1
        counts.turns += len(turns)
        for number, window in enumerate(windows(turns, num_tokens, counts)):
            counts.windows += 1
            if number == 0:  # one from each conversation, so that they differ
                prompts.append(json.dumps({"prompt": as_chat(window)[0]["content"]}, ensure_ascii=False))
            row = {"messages": as_chat(window), "conversation": path.stem}
            lines.append(json.dumps(row, ensure_ascii=False))
    target.mkdir(parents=True, exist_ok=True)
    write_file(target / "train.jsonl", "\n".join(lines) + "\n")
    write_file(target / "prompts.jsonl", "\n".join(prompts) + "\n")
    about = {
        "corpus": "Hong Kong Cantonese Corpus (Luke and Wong 2015), CC BY 4.0, from pycantonese 5.0.0",
        "shuffled_words": shuffled_seed is not None,
        "counts": asdict(counts),
        "sha256": sha256_file(target / "train.jsonl"),
    }
    write_json(target / "about.json", about)
    return counts


def main() -> None:
    """Builds the corpus from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path(".cache/demo/hkcancor"))
    parser.add_argument("--tokenizer", type=Path, default=Path(".cache/demo/smollm2"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/packages"))
    parser.add_argument("--shuffle-words", type=int, default=None, metavar="SEED")
    arguments = parser.parse_args()
    if (arguments.to / "about.json").is_file():
        return
    counts = build(arguments.to, arguments.tokenizer, arguments.cache, shuffled_seed=arguments.shuffle_words)
    print(
        f"HKCanCor: {counts.conversations} conversations -> {counts.windows} windows of at most {WINDOW_TOKENS} tokens; "
        f"left out: {counts.turns_too_long} turns longer than that, {counts.windows_of_one_turn} turns alone"
    )


if __name__ == "__main__":
    main()
