"""The name of a prepared folder: a hash of everything that decides its tokens, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from configs.atomic import sha256_file
from configs.errors import DataError
from configs.schema import DataSection
from data_pipelines.gates import identity as gates_identity
from data_pipelines.privacy.screen import identity as screen_identity
from data_pipelines.roles import LABELLED
from data_pipelines.sources import InputFile

# Raise when the same rows would give other tokens, labels or columns than before.
DATA_VERSION = 1
# Raise when two values of data.group_by that were one group become two, or the other way round.
GROUP_KEYS_VERSION = 3
# Raise when other completions become kto's mismatched ones.
MISMATCHES_VERSION = 2
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def hash_files(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns the SHA-256 of each file, several at a time.

    Raises:
        DataError: a file cannot be read.
    """
    unique = list(dict.fromkeys(paths))
    try:
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(unique, pool.map(sha256_file, unique), strict=True))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def tokenizer_files(folder: str) -> list[Path]:
    """Returns the files of a tokenizer folder that decide its tokens, as absolute paths."""
    base = Path(folder).expanduser().absolute()
    templates = sorted((base / "additional_chat_templates").glob("*.jinja"))
    return [path for path in (base / name for name in TOKENIZER_FILES) if path.is_file()] + templates


def fingerprint(
    data: DataSection,
    objective: str,
    *,
    files: Sequence[InputFile],
    hashes: dict[Path, str],
    tokenizer: Sequence[Path],
    template: str | None,
    seed: int,
) -> str:
    """Returns 64 hex digits.

    Args:
        data: the options.
        objective: sft or cpt.
        files: the inputs in reading order; their names count (they decide the order), their folders do not.
        hashes: SHA-256 of every input and tokenizer file.
        tokenizer: the tokenizer's files.
        template: text of data.chat_template.
        seed: of the split and of fractional weights.
    """
    described: dict[str, Any] = {
        "version": DATA_VERSION,
        "objective": objective,
        "inputs": [
            [file.source, file.kind, Path(file.path).name, [hashes[path] for path in file.hashed_paths()]]
            for file in files
        ],
        "sources": {
            name: [source.format, dict(source.columns), source.weight] for name, source in data.named_sources().items()
        },
        "tokenizer": {path.name: hashes[path] for path in tokenizer},
        "template": template,
        "template_args": dict(data.template_args),
        "validation": data.validation if "%" in data.validation or data.validation == "none" else "path",
        "seed": seed,
    }
    if data.group_by:
        described["group_keys"] = GROUP_KEYS_VERSION
    if objective in LABELLED:
        described["mismatches"] = MISMATCHES_VERSION
    described |= screen_identity(data) | gates_identity(data)
    for name in ("group_by", "system_prompt", "sequence_length", "packing", "overlength", "max_bad_rows", "limit"):
        described[name] = getattr(data, name)
    text = json.dumps(described, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
