"""A few pieces of the user's own documents, packed and alone: so small that every step is all of it.

Then rows of one document, packed rows, any micro-batch and any number of ranks are the same mathematics.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from configs.schema import RunConfig
from data_pipelines.build import prepare
from data_pipelines.index import Store
from data_pipelines.store import Document, StoreWriter
from data_pipelines.tokenize import load_tokenizer

# Rows of the user's data that are read at all.
ROWS_READ = 64
# Longest pieces, in tokens, in turn: very different lengths, so that a mean of means is no mean.
PIECE_TOKENS = (48, 11, 29, 7, 37, 18)
NUM_PIECES = 12
# Of preferences: as many answers in all.
NUM_PAIRS = NUM_PIECES // 2
# Two ranks, three or four do not divide this: some get empty rows.
PACKED_ROWS = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """What was taken: pieces of documents, as rows of several and as rows of one, and flawed labels.

    Attributes:
        items: what shares a row even unpacked: a piece, or the two answers of a pair.
        row_tokens: length of a packed row; piece_tokens: of the longest item, and of a row of one.
        documents_read: in the first rows of the data; unended: of these, in which a learned turn does not end in a
            control token.
    """

    documents: int
    items: int
    packed_rows: int
    row_tokens: int
    piece_tokens: int
    tokens: int
    supervised: int
    documents_read: int
    unended: int


def take_sample(config: RunConfig, tokenizer_path: str, folder: Path, command: str) -> Sample:
    """Reads the first rows of `config`'s data and writes `folder`/packed/train and `folder`/alone/train.

    Raises:
        DataError: the data cannot be used, or nothing in its first rows is learned.
    """
    data = copy.deepcopy(config.data)
    data.limit = min(data.limit or ROWS_READ, ROWS_READ)
    data.validation, data.store, data.workers = "none", str(folder / "stores"), 1
    prepared = prepare(data, config.objective.name, tokenizer_path, seed=config.training.seed, command=command)
    items = [[piece] for piece in cut_pieces(prepared.train)] if prepared.train.document_role is None else cut_pairs(prepared.train)
    if not items:
        raise DataError(f"aisc prove: nothing is learned in the first {ROWS_READ} rows of the data")
    lengths = [sum(len(piece.ids) for piece in item) for item in items]
    tokens = sum(lengths)
    piece_tokens = max(8, *lengths)
    row_tokens = max(piece_tokens, -(-tokens // PACKED_ROWS))
    tokenizer = load_tokenizer(tokenizer_path)
    made = {}
    for name, packing in (("packed", True), ("alone", False)):
        (folder / name).mkdir()
        writer = StoreWriter(
            folder / name / "train",
            fingerprint=prepared.fingerprint,
            sequence_length=row_tokens if packing else piece_tokens,
            sources=prepared.train.sources,
            vocab_size=len(tokenizer),
            packing=packing,
        )
        for item in items:
            writer.add_item(item)
        writer.finish()
        made[name] = Store(folder / name / "train")
    return Sample(
        documents=sum(map(len, items)),
        items=len(items),
        packed_rows=made["packed"].num_rows,
        row_tokens=row_tokens,
        piece_tokens=piece_tokens,
        tokens=tokens,
        supervised=made["packed"].supervised,
        documents_read=prepared.train.num_documents,
        unended=count_unended(prepared.train, tokenizer) if config.objective.name == "sft" else 0,
    )


def cut_pieces(store: Store) -> list[Document]:
    """Returns pieces of documents spread over the store, each with something learned; `row` numbers them from 1."""
    pieces: list[Document] = []
    for turn in range(NUM_PIECES):
        for document in np.unique(np.linspace(0, store.num_documents - 1, NUM_PIECES).astype(np.int64)).tolist():
            if len(pieces) == NUM_PIECES:
                return pieces
            most = PIECE_TOKENS[len(pieces) % len(PIECE_TOKENS)]
            ids, mask = store.document(document)
            learned = np.flatnonzero(mask)
            # Some of what leads to the first learned token, then on from piece to piece.
            begin = (max(0, int(learned[0]) - most // 3) if len(learned) else 0) + turn * PIECE_TOKENS[0]
            if len(learned) and mask[begin + 1 : begin + most].any():
                part = slice(begin, begin + most)
                source = int(store.document_source[document])
                pieces.append(Document(ids[part].astype(np.uint32), mask[part].astype(bool), source, 0, len(pieces) + 1))
    return pieces


def cut_pairs(store: Store) -> list[list[Document]]:
    """Returns pairs of answers spread over the store, the end of their prompt and the beginning of each; of unlike lengths."""
    pairs: list[list[Document]] = []
    assert store.document_role is not None and store.document_margin is not None
    for item in np.unique(np.linspace(0, store.num_documents // 2 - 1, NUM_PAIRS).astype(np.int64)).tolist():
        pair = []
        for side in (0, 1):
            document = 2 * item + side
            ids, mask = store.document(document)
            most = PIECE_TOKENS[(len(pairs) + 2 * side) % len(PIECE_TOKENS)]
            begin = max(0, int(np.flatnonzero(mask)[0]) - most // 3)
            part = slice(begin, begin + most)
            row = 2 * len(pairs) + side + 1
            role, margin = int(store.document_role[document]), float(store.document_margin[document])
            source = int(store.document_source[document])
            pair.append(Document(ids[part].astype(np.uint32), mask[part].astype(bool), source, 0, row, role, margin))
        pairs.append(pair)
    return pairs


def count_unended(store: Store, tokenizer: Any) -> int:
    """Returns how many documents have a learned turn that does not end in a control token (nor with the document)."""
    control = np.array(sorted(tokenizer.added_tokens_decoder), dtype=np.int64)
    flawed = 0
    for document in range(store.num_documents):
        ids, mask = store.document(document)
        last = np.flatnonzero(mask[:-1] & ~mask[1:])
        flawed += not np.isin(ids[last], control).all()
    return flawed
