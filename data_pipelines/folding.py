"""Text as the gates compare it: full and half width, case and the two Chinese scripts are one.

Simplified by OpenCC's table of single characters, not by its phrases: what matters here is that both scripts of one text
become the same, not that the result reads well, and a table of characters is applied at the speed of `str.translate`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_HAN_RANGES = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x2A6E0))
# Soft hyphens, marks of direction and other characters without width, which pages and PDF files leave inside words.
_NO_WIDTH = (0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
_NOT_COMPARED = re.compile(r"[\W_]+")


@cache
def _table() -> dict[int, str]:
    """Returns traditional characters with their simplified form where it is another one, and nothing for those without width."""
    from opencc import OpenCC

    characters = [chr(code) for first, last in _HAN_RANGES for code in range(first, last)]
    converted = OpenCC("t2s").convert("\n".join(characters)).split("\n")
    simplified = {ord(a): b for a, b in zip(characters, converted, strict=True) if a != b and len(b) == 1}
    return simplified | dict.fromkeys(_NO_WIDTH, "")


def fold_text(text: str) -> str:
    """Returns `text` in one width (NFKC), one case and one script, without characters that have no width."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_table())
    return plain.casefold()


def letters_of(text: str) -> str:
    """Returns the folded letters and digits of `text`, without blanks and marks."""
    return _NOT_COMPARED.sub("", fold_text(text))
