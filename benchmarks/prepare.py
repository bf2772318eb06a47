"""From chat rows to a packed store beside bare tokenising.    python -m benchmarks.prepare [--documents N]

The whole of `prepare` (hashing the input, JSON, checks, template, tokens, label mask, packing, writing) against
`encode_batch` alone on the texts that the template yields, both in one process without threads, alternating; CPU
seconds, the best of three rounds each.

Own input: chats of the paragraphs of this Python's own modules and a byte-level BPE learned from them; another with
--tokenizer FOLDER --data FILE.jsonl (chats, `messages`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.evidence import record
from benchmarks.screen import show, verdict
from configs.schema import DataSection
from data_pipelines.build import prepare

PREDICTION = {"share_of_bare": 0.85}
COVERS = [
    "data_pipelines/build.py",
    "data_pipelines/scanning.py",
    "data_pipelines/reading.py",
    "data_pipelines/template.py",
    "data_pipelines/tokenize.py",
    "data_pipelines/assembly.py",
    "data_pipelines/store.py",
    "data_pipelines/packing.py",
    "benchmarks/prepare.py",
]
SEQUENCE_LENGTH = 2048
LONGEST_PARAGRAPH = 600
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def paragraphs() -> Iterator[str]:
    """Yields the paragraphs of the standard library's source files, in a fixed order."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for part in path.read_text(encoding="utf-8", errors="replace").split("\n\n"):
            text = part.strip()[:LONGEST_PARAGRAPH]
            if len(text) > 40:
                yield text


def write_chats(path: Path, documents: int) -> None:
    """Writes `documents` chats of one to four exchanges."""
    texts = list(paragraphs())
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(documents):
            turns = 2 * draw.randint(1, 4)
            roles = ("user", "assistant")
            messages = [{"role": roles[i % 2], "content": draw.choice(texts)} for i in range(turns)]
            file.write(json.dumps({"messages": messages}) + "\n")


def write_tokenizer(folder: Path) -> None:
    """Learns a byte-level BPE of 16,384 tokens from the paragraphs and saves it with a ChatML template."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    special = ["<|im_start|>", "<|im_end|>"]
    bpe.train_from_iterator(paragraphs(), vocab_size=16_384, special_tokens=special, show_progress=False)
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe._tokenizer, bos_token=special[0], eos_token=special[1]
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(str(folder))


def bare(tokenizer: Any, texts: list[str], chunk: int = 1000) -> tuple[float, int]:
    """Returns (CPU seconds, tokens) of `encode_batch` on the rendered texts."""
    began = time.process_time()
    tokens = 0
    for begin in range(0, len(texts), chunk):
        encoded = tokenizer.encode_batch(texts[begin : begin + chunk], add_special_tokens=False)
        tokens += sum(len(one.ids) for one in encoded)
    return time.process_time() - began, tokens


def ours(tokenizer: Path, data: Path, store: Path) -> tuple[float, int]:
    """Returns (CPU seconds, tokens) of preparing the same rows."""
    section = DataSection(
        train=str(data),
        validation="none",
        sequence_length=SEQUENCE_LENGTH,
        overlength="truncate",
        workers=1,
        store=str(store),
    )
    began = time.process_time()
    prepared = prepare(section, "sft", str(tokenizer), seed=0)
    return time.process_time() - began, prepared.train.tokens


def measure(documents: int, tokenizer: Path | None, data: Path | None, rounds: int = 3) -> dict[str, Any]:
    """Returns prediction, measurements, and the share of bare tokenising's rate that is kept."""
    from transformers import AutoTokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if data is None:
            data = folder / "chats.jsonl"
            write_chats(data, documents)
        if tokenizer is None:
            tokenizer = folder / "tokenizer"
            write_tokenizer(tokenizer)
        loaded = AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
        texts = [str(loaded.apply_chat_template(row["messages"], tokenize=False)) for row in rows]
        bare_rounds, our_rounds = [], []
        for number in range(rounds):
            bare_rounds.append(bare(loaded.backend_tokenizer, texts))
            our_rounds.append(ours(tokenizer, data, folder / f"stores-{number}"))
    table = [
        _row("encode_batch alone", len(rows), min(bare_rounds)),
        _row("aisc prepare", len(rows), min(our_rounds)),
    ]
    share = table[1]["tokens_per_s"] / table[0]["tokens_per_s"]
    return {
        "result": verdict(share >= PREDICTION["share_of_bare"], f"{share:.0%} of bare encode_batch, per core"),
        "documents": len(rows),
        "prediction": PREDICTION,
        "measured": table,
        "ratio": {"share_of_bare": share},
    }


def _row(name: str, documents: int, round_: tuple[float, int]) -> dict[str, Any]:
    seconds, tokens = round_
    return {
        "name": name,
        "cpu_s": seconds,
        "tokens": tokens,
        "tokens_per_s": tokens / seconds,
        "documents_per_s": documents / seconds,
    }


def main() -> None:
    """Runs the benchmark and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer with a chat template")
    parser.add_argument("--data", type=Path, help="JSONL with `messages`; then --documents is not used")
    parser.add_argument("--no-record", action="store_true", help="show only, leave docs/evidence as it is")
    arguments = parser.parse_args()
    result = measure(arguments.documents, arguments.tokenizer, arguments.data)
    show("prepare", result)
    if not arguments.no_record:
        record("prepare", covers=COVERS, result=result.pop("result"), counts=result, seed=0)


if __name__ == "__main__":
    main()
