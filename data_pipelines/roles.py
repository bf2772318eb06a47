"""What a document is to a preference objective, as the column `document_role` of a store."""

from __future__ import annotations

from enum import IntEnum

from configs.schema.objective import PREFERENCE


class Role(IntEnum):
    """PLAIN: no preference.

    CHOSEN, REJECTED: the better and the worse answer to one prompt, one after the other in a row.
    DESIRABLE, UNDESIRABLE: an answer with a label, followed in its row by MISMATCHED: its prompt with the completion of
    another row, of which the baseline of kto is made.
    """

    PLAIN = 0
    CHOSEN = 1
    REJECTED = 2
    DESIRABLE = 3
    UNDESIRABLE = 4
    MISMATCHED = 5


# Objectives that learn from answers with a label; the other preference objectives learn from pairs.
LABELLED = ("kto",)


def is_preference(objective: str) -> bool:
    """Returns whether documents of this objective have roles."""
    return objective in PREFERENCE
