"""Texts as token ids with their labels: exactly the learned characters, in batches for the Rust tokenizer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from data_pipelines.problems import WHOLE_ROW, RowProblem
from data_pipelines.template import ChatTemplate, Rendered, Span

Ids = NDArray[np.uint32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One document: `ids` `[n]` uint32 and `mask` `[n]`, True where the token is learned."""

    ids: Ids
    mask: Mask


def load_tokenizer(path: str) -> Any:
    """Returns the fast tokenizer of a local folder.

    Raises:
        DataError: no tokenizer there, or one without a Rust implementation.
    """
    from transformers import AutoTokenizer

    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{path}: no such folder; model.tokenizer (or model.path) needs a folder with tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise DataError(
            f"{path}: no tokenizer that can be read ({type(error).__name__}); the folder holds {names}"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(
            f"{path}: a slow tokenizer without tokenizer.json; save it once as a fast one (save_pretrained)"
        )
    return tokenizer


def template_of(tokenizer: Any, args: dict[str, Any], source: str | None = None) -> ChatTemplate:
    """Returns the chat template to use: `source`, else the tokenizer's own.

    Raises:
        DataError: there is none, or it cannot be used.
    """
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    chosen = source or own
    if not chosen:
        raise DataError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; data.chat_template=FILE.jinja gives one "
            "(a base model usually has none: objective=cpt learns plain text)"
        )
    return ChatTemplate(
        chosen,
        args=args,
        special_tokens=special_tokens(tokenizer),
        control_tokens=[token.content for token in tokenizer.added_tokens_decoder.values()],
    )


def read_template(path: str | None) -> str | None:
    """Returns the text of data.chat_template; None when it is not given.

    Raises:
        DataError: the file is not there, not UTF-8 or empty.
    """
    if path is None:
        return None
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data.chat_template={path}: cannot be read ({type(error).__name__}); give a UTF-8 Jinja file"
        ) from error
    if not text.strip():
        raise DataError(f"data.chat_template={path}: the file is empty; give a UTF-8 Jinja file")
    return text


def special_tokens(tokenizer: Any) -> dict[str, str]:
    """Returns bos_token, eos_token and so on as texts."""
    return {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(name, str)}


class Encoder:
    """Turns rendered chats and plain texts into tokens.

    Args:
        tokenizer: a fast tokenizer that belongs to this encoder alone; its offsets are made exact.
        learn_all: every token but the first is learned (cpt), not only the spans (sft).

    Raises:
        DataError: plain text without an end-of-text token in the tokenizer.
    """

    def __init__(self, tokenizer: Any, *, learn_all: bool) -> None:
        first = tokenizer("a")["input_ids"][:1]
        bos = tokenizer.bos_token_id
        self._bos: list[int] = [bos] if bos is not None and first == [bos] else []
        self._eos: int | None = tokenizer.eos_token_id
        self._name = tokenizer.name_or_path
        self._learn_all = learn_all
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._added_ids = frozenset(tokenizer.added_tokens_decoder)
        _keep_blanks_in_offsets(self._backend)

    def chats(self, rendered: Sequence[Rendered]) -> list[Tokens | RowProblem]:
        """Returns the tokens of each chat, or why its mask cannot be learned from."""
        try:
            encodings = self._backend.encode_batch([chat.text for chat in rendered], add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            return self._one_by_one(rendered)
        return [self._chat(chat, encoding) for chat, encoding in zip(rendered, encodings, strict=True)]

    def texts(self, texts: Sequence[str]) -> list[Tokens | RowProblem]:
        """Returns the tokens of each plain text: bos where the tokenizer puts one, eos at the end, all learned."""
        if self._eos is None:
            raise DataError(f"{self._name}: no eos_token, so a text would have no end; set it in tokenizer_config.json")
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            if len(texts) == 1:
                return [_surrogate()]
            return [self.texts([text])[0] for text in texts]
        return [self._text(encoding.ids) for encoding in encodings]

    def _text(self, ids: list[int]) -> Tokens:
        start = [] if ids[:1] == self._bos else self._bos
        end = [] if ids[-1:] == [self._eos] else [self._eos]
        made = np.array([*start, *ids, *end], dtype=np.uint32)
        mask = np.ones(len(made), np.bool_)
        mask[0] = False
        return Tokens(made, mask)

    def _one_by_one(self, rendered: Sequence[Rendered]) -> list[Tokens | RowProblem]:
        if len(rendered) == 1:
            return [_surrogate()]
        return [self.chats([chat])[0] for chat in rendered]

    def _chat(self, chat: Rendered, encoding: Any) -> Tokens | RowProblem:
        ids = np.array(encoding.ids, dtype=np.uint32)
        if self._learn_all:
            mask = np.ones(len(ids), np.bool_)
            mask[:1] = False
            return Tokens(ids, mask)
        mask = np.zeros(len(ids), np.bool_)
        for start, end in chat.spans:
            first = self._first_token(encoding, start)
            last = encoding.char_to_token(end - 1)
            if last is None or int(ids[last]) not in self._added_ids:
                return RowProblem(
                    WHOLE_ROW, "the end-of-turn text is not one token", "add it to the tokenizer's special tokens"
                )
            if first is None:
                return self._cut_at_starts(chat)
            mask[first : last + 1] = True
        return _checked(ids, mask)

    @staticmethod
    def _first_token(encoding: Any, start: int) -> int | None:
        """Returns the token that starts at character `start`; None when one reaches over it."""
        first = encoding.char_to_token(start)
        if first is None:  # This character is in no token (a blank that the tokenizer drops): take the next one.
            first = next((i for i, (begin, _) in enumerate(encoding.offsets) if begin >= start), None)
        if first is None or encoding.token_to_chars(first)[0] < start:
            return None
        return int(first)

    def _cut_at_starts(self, chat: Rendered) -> Tokens | RowProblem:
        """Encodes the text in pieces cut where the model starts to write, as generation would have it.

        Needed when a token would join the end of a header and the start of a turn (two line ends as one token).
        """
        cuts = [0, *(start for start, _ in chat.spans), len(chat.text)]
        pieces = [chat.text[begin:end] for begin, end in itertools.pairwise(cuts)]
        encodings = self._backend.encode_batch(pieces, add_special_tokens=False)
        ids: list[int] = []
        mask: list[bool] = []
        spans: list[Span | None] = [None, *chat.spans]
        for piece, encoding, span in zip(pieces, encodings, spans, strict=True):
            if span and encoding.tokens and encoding.tokens[0].startswith("▁") and not piece.startswith((" ", "▁")):
                return RowProblem(
                    WHOLE_ROW,
                    "a token joins a header and a turn",
                    "this tokenizer adds a blank when cut there; trim the turn's text",
                )
            last = encoding.char_to_token(span[1] - span[0] - 1) if span else -1
            if last is None:
                return RowProblem(
                    WHOLE_ROW, "the end-of-turn text is not one token", "add it to the tokenizer's special tokens"
                )
            ids += encoding.ids
            mask += [i <= last for i in range(len(encoding.ids))]
        return _checked(np.array(ids, np.uint32), np.array(mask, np.bool_))


def _checked(ids: Ids, mask: Mask) -> Tokens | RowProblem:
    """Returns the document unless its mask is nothing or everything."""
    learned = int(np.count_nonzero(mask[1:]))
    if not learned:
        return RowProblem(WHOLE_ROW, "the loss mask is empty", "nothing in this row can be learned")
    if learned == len(ids) - 1:
        return RowProblem(
            WHOLE_ROW,
            "the loss mask covers every token",
            "a chat needs a turn before the assistant's; for plain text objective=cpt",
        )
    return Tokens(ids, mask)


def _surrogate() -> RowProblem:
    return RowProblem(
        WHOLE_ROW,
        "half of a surrogate pair (\\ud800-\\udfff)",
        "write the whole character",
        reason="half of a surrogate pair",
    )


def _keep_blanks_in_offsets(backend: Any) -> None:
    """Makes offsets name every character: byte-level post-processors may leave blanks out of them."""
    from tokenizers.processors import ByteLevel

    if backend.post_processor is not None:
        backend.post_processor = ByteLevel(trim_offsets=False, add_prefix_space=False)
