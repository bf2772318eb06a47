"""What is not known and what no figure here can show: everything that the other sections miss, and what holds always."""

from __future__ import annotations

from collections.abc import Sequence

from train.board.section import BoardSection, Words

ALWAYS: tuple[Words, ...] = (
    ("A language model writes fluent sentences that are wrong, and does not say when it does.",),
    (
        "Held-out data is of the same origin as the training data: the figures say little of other hospitals, years or wordings.",
    ),
    (
        "This page is made from files that the run wrote. That nothing in them changed since is shown by: aisc verify RUN.",
    ),
)


def section(others: Sequence[BoardSection]) -> BoardSection:
    """Returns the limits, given all other sections."""
    open_points: tuple[Words, ...] = tuple((sentence,) for part in others for sentence in part.missing)
    return BoardSection(
        "Limits, and what is not known",
        "限制與未知事項",
        sentences=(
            (
                f"Open points: {len(open_points)}; they come first."
                if open_points
                else "No point is open beyond what holds always.",
            ),
        ),
        points=(*open_points, *ALWAYS),
    )
