"""What a document of a store is to an objective that learns from preferences; the column `document_role` holds it."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """PLAIN: nothing. A pair is CHOSEN and then REJECTED; an example DESIRABLE or UNDESIRABLE and then MISMATCHED."""

    PLAIN = 0
    CHOSEN = 1
    REJECTED = 2
    DESIRABLE = 3
    UNDESIRABLE = 4
    MISMATCHED = 5
