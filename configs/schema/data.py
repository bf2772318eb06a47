"""`data`: which rows, how they become tokens, how tokens become rows of `sequence_length`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from configs.schema.fields import setting

PRESIDIO_MISSING = "Presidio is not installed here:  pip install 'aisc-finetune[presidio]'"


@dataclass(kw_only=True, slots=True)
class SourceSection:
    path: str = setting("", identity=True, help="File, folder or glob: JSONL, JSON, Parquet, CSV, text (.gz .zst .bz2 .xz too), a saved `datasets` folder, or hub:NAME.")
    format: str = setting(
        "auto",
        identity=True,
        choices=("auto", "chat", "sharegpt", "alpaca", "text", "preference", "kto"),
        help="How a row is read; auto: from its keys.",
    )
    columns: dict[str, str] = setting(
        factory=dict, identity=True, help="Maps a format's field to this file's column, e.g. {messages: dialogue}."
    )
    weight: float = setting(
        1.0, identity=True, help="How often this source's documents appear per epoch: 2.0 twice, 0.5 a fixed half."
    )
    licence: str = setting(
        "", identity=False, help="What its owner allows, e.g. CC-BY-4.0; a release needs it. Empty: data.licence."
    )


@dataclass(kw_only=True, slots=True)
class DataSection:
    train: str | None = setting(None, identity=True, help="Path of the training data when there is one source.")
    sources: dict[str, SourceSection] = setting(
        factory=dict, identity=True, help="Several sources by name, each {path, format, columns, weight}."
    )
    validation: str = setting(
        "5%", identity=True, help="Held-out part of the training groups (`5%`), a path of held-out rows, or `none`."
    )
    group_by: str | None = setting(
        None, identity=True, help="Column whose equal values stay on one side of the split (e.g. patient_id); null: each row alone."
    )
    system_prompt: str | None = setting(
        None, identity=True, help="System message put before chats that have none; also used by evaluation and chat. null: none."
    )
    template_args: dict[str, Any] = setting(
        factory=dict, identity=True, help="Arguments for the chat template, e.g. {enable_thinking: false}; stored with the export."
    )
    chat_template: str | None = setting(
        None, identity=True, help="Jinja file that replaces the tokenizer's chat template; null: the tokenizer's own."
    )
    sequence_length: int = setting(2048, identity=True, help="Tokens in a packed row.")
    packing: bool = setting(True, identity=True, help="Put several whole documents into one row; false: one document a row.")
    overlength: str = setting(
        "error",
        identity=True,
        choices=("error", "truncate", "drop", "split"),
        help="What happens to a document longer than `sequence_length`; all but error are counted.",
    )
    max_bad_rows: int = setting(0, identity=True, help="How many unusable rows may be left out, counted; 0: any is an error.")
    limit: int | None = setting(
        None, identity=True, help="Use only the first N rows of each source; null: all."
    )
    licence: str = setting(
        "", identity=False, help="Licence of the data where a source has none of its own; a release needs it."
    )
    privacy: str = setting(
        "off",
        identity=True,
        choices=("off", "report", "mask", "drop"),
        help="Identifiers of people (card and telephone numbers, names, ...): not looked for, counted, replaced by surrogates, or their documents left out.",
    )
    privacy_key: str | None = setting(
        None, identity=False, help="File (mode 0600) with the secret of `privacy: mask`; null: $AISC_PRIVACY_KEY. It is stored nowhere."
    )
    presidio: str | None = setting(
        None,
        identity=True,
        help="Presidio beside the rules of `privacy` (pip install 'aisc-finetune[presidio]'): patterns, or the name or folder of a spaCy model of yours, which finds persons too; null: rules alone.",
    )
    duplicates: str = setting(
        "refuse",
        identity=True,
        choices=("off", "report", "drop", "refuse"),
        help="Training rows that repeat held-out ones, exactly or nearly: not looked for, counted, left out of training, or an error.",
    )
    duplicate_similarity: float = setting(
        0.8, identity=True, help="Share of common 4-character pieces (Jaccard, 0.5 to 1) from which two rows are near duplicates."
    )
    decontaminate: list[str] = setting(
        factory=list, identity=True, help="Files of evaluation items (JSONL, JSON, CSV, Parquet) that must not be in the training rows."
    )
    contaminated: str = setting(
        "drop",
        identity=True,
        choices=("report", "drop", "refuse"),
        help="Training rows that hold an item of `decontaminate`: counted, left out, or an error.",
    )
    online: bool = setting(False, identity=False, help="Allow hub:NAME sources to be fetched from the network.")
    workers: int = setting(0, identity=False, help="Processes that read and tokenise; 0: one per core.")
    store: str | None = setting(
        None, identity=False, help="Folder of prepared data; null: $AISC_STORES or ./stores."
    )

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        found = []
        if self.train and self.sources:
            found.append("data.train and data.sources: give one of them")
        if self.sequence_length < 8:
            found.append(f"data.sequence_length={self.sequence_length}: expected 8 or more")
        if self.limit is not None and self.limit < 1:
            found.append(f"data.limit={self.limit}: expected 1 or more, or null")
        if self.presidio is not None and self.privacy == "off":
            found.append(f"data.presidio={self.presidio}: nothing is looked for while data.privacy=off; give data.privacy=report, mask or drop")
        if self.presidio is not None and not _installed("presidio-analyzer"):
            found.append(f"data.presidio={self.presidio}: {PRESIDIO_MISSING}")
        if not 0.5 <= self.duplicate_similarity <= 1:
            found.append(f"data.duplicate_similarity={self.duplicate_similarity}: expected 0.5 to 1")
        if self.max_bad_rows < 0:
            found.append(f"data.max_bad_rows={self.max_bad_rows}: expected 0 or more")
        for name, source in self.sources.items():
            if not source.path:
                found.append(f"data.sources.{name}.path: missing")
            if source.weight <= 0:
                found.append(f"data.sources.{name}.weight={source.weight}: expected more than 0")
        return found

    def named_sources(self) -> dict[str, SourceSection]:
        """Returns the sources by name; `data.train` becomes the one source named `train`."""
        return {"train": SourceSection(path=self.train)} if self.train else dict(self.sources)


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
