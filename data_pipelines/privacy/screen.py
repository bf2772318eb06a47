"""A document on its way to the tokenizer: its identifiers counted, replaced, or the document marked to be left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from configs.schema import DataSection
from data_pipelines.formats.document import Document, Message, Text
from data_pipelines.privacy.detect import find
from data_pipelines.privacy.masking import mask
from data_pipelines.privacy.presidio import check, make_engine
from data_pipelines.privacy.presidio import identity as presidio_identity
from data_pipelines.privacy.secret import read_secret
from data_pipelines.privacy.surrogates import Surrogates, derive_key

# Names of roles, types, functions and calls: they tie a conversation together and are no text.
_NOT_TEXT = frozenset({"role", "type", "id", "tool_call_id"})
# Raise when a rule or a surrogate changes, so that stores built before are built again.
RULES_VERSION = 3
DROPPED = "dropped, identifiers in it"


@dataclass(frozen=True, slots=True)
class Screen:
    """How documents are screened: `mode` report, mask or drop; `surrogates` for mask; `presidio`: data.presidio."""

    mode: str
    surrogates: Surrogates | None = None
    presidio: str | None = None

    def screened(self, document: Document) -> tuple[Document, Counter[str]]:
        """Returns the document as it may be learned, and how many identifiers of each kind it held."""
        counts: Counter[str] = Counter()
        if isinstance(document, Text):
            return Text(self._text(document.text, counts)), counts
        return replace(document, messages=[self._message(message, counts) for message in document.messages]), counts

    def _message(self, message: Message, counts: Counter[str]) -> Message:
        return {key: value if key in _NOT_TEXT else self._value(value, counts) for key, value in message.items()}

    def _value(self, value: Any, counts: Counter[str]) -> Any:
        if isinstance(value, str):
            return self._text(value, counts)
        if isinstance(value, list):
            return [self._value(item, counts) for item in value]
        if isinstance(value, dict):
            return self._message(value, counts)
        return value

    def _text(self, text: str, counts: Counter[str]) -> str:
        engines = () if self.presidio is None else (make_engine(self.presidio),)
        if self.surrogates is None:
            counts.update(match.kind for match in find(text, engines))
            return text
        masked, found = mask(text, self.surrogates, engines)
        counts.update(found)
        return masked


def make_screen(data: DataSection) -> Screen | None:
    """Returns the screen of data.privacy; None when it is off.

    Raises:
        DataError: mask without a secret that can be used; Presidio or its model is not installed.
    """
    if data.privacy == "off":
        return None
    if data.presidio is not None:
        check(data.presidio)
    surrogates = _surrogates(read_secret(data.privacy_key)) if data.privacy == "mask" else None
    return Screen(data.privacy, surrogates, data.presidio)


@lru_cache(maxsize=4)
def _surrogates(secret: bytes) -> Surrogates:
    return Surrogates(derive_key(secret))


def identity(data: DataSection) -> dict[str, Any]:
    """Returns what the name of a prepared folder holds of the screen; nothing when it is off.

    The secret itself is not in it: `key` is an HMAC under a key derived by scrypt, and a secret has 32 random bytes. It
    shows no more than the surrogates in the data do: that two folders were masked with one secret, or with two.
    """
    screen = make_screen(data)
    if screen is None:
        return {}
    key = screen.surrogates.identity() if screen.surrogates else None
    beside = {"presidio": presidio_identity(screen.presidio)} if screen.presidio else {}
    return {"privacy": {"mode": screen.mode, "rules": RULES_VERSION, "key": key} | beside}
