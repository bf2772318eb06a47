"""Texts with their identifiers replaced: until nothing is found any more, so that masking twice is masking once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from data_pipelines.privacy.detect import Engine, find
from data_pipelines.privacy.surrogates import Surrogates

# A replacement can bring two halves of another identifier together, never often: seven times in a row of numbers is known.
_MOST_PASSES = 30


def mask(text: str, surrogates: Surrogates, engines: Sequence[Engine] = ()) -> tuple[str, Counter[str]]:
    """Returns the text with surrogates, and how many identifiers of each kind were replaced."""
    counts: Counter[str] = Counter()
    for _ in range(_MOST_PASSES):
        pieces: list[str] = []
        last = 0
        for match in find(text, engines):
            value = text[match.start : match.end]
            surrogate = surrogates.of(match.kind, value)
            if surrogate == value:
                continue
            pieces += [text[last : match.start], surrogate]
            last = match.end
            counts[match.kind] += 1
        if not pieces:
            break
        text = "".join([*pieces, text[last:]])
    return text, counts
