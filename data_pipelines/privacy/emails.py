"""E-mail addresses, also spaced (`chan @ ha . org . hk`) and spelt out (`chan [at] ha [dot] org [dot] hk`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipelines.privacy.kinds import Certainty, Match

_AT = r"(?: ?@ ?| ?\( ?(?:at|AT) ?\) ?| (?:at|AT) )"
_DOT = r"(?: ?\. ?(?=[A-Za-z])| ?\( ?(?:dot|DOT) ?\) ?| (?:dot|DOT) )"
# At most 64 characters before the sign (RFC 5321, 4.5.3.1.1).
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+'-]{0,63}@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}")
# A dot before a letter is `_DOT` alone: were it both, a long chain of them would be tried in every combination.
_USER = rf"[A-Za-z0-9][A-Za-z0-9_%+-]*(?:(?:\.(?![A-Za-z])|{_DOT})[A-Za-z0-9_%+-]+)*"
_TOP = r"(?:com|org|net|edu|gov|hk|cn|tw|uk|info|io|co|mo)"
_SPELT = re.compile(
    rf"(?<![A-Za-z0-9]){_USER}{_AT}(?:[A-Za-z0-9-]+{_DOT}){{1,4}}{_TOP}(?:{_DOT}{_TOP})?(?![A-Za-z0-9])"
)
_SPACED = re.compile(r"(?<![A-Za-z0-9])(?:[A-Za-z0-9._%+-] ){2,}@ (?:[A-Za-z0-9.-] ){2,}[A-Za-z](?![A-Za-z0-9])")


def find(text: str) -> Iterator[Match]:
    """Yields e-mail addresses."""
    patterns = [_PLAIN, _SPACED] if "@" in text else []
    if "@" in text or re.search(r"\bat\b", text, re.IGNORECASE):
        patterns.append(_SPELT)
    for pattern in patterns:
        for found in pattern.finditer(text):
            yield Match("email", found.start(), found.end(), Certainty.IDENTITY)
