"""All detectors over one text: the identifiers in it, without overlaps, at their places in the original."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from data_pipelines.privacy import (
    addresses_en,
    addresses_zh,
    births,
    emails,
    identity_cards,
    money,
    names_en,
    names_zh,
    numbers,
    phones,
    records,
)
from data_pipelines.privacy.kinds import Match
from data_pipelines.privacy.normalise import fold
from data_pipelines.privacy.reserved import reserved_spans

Detector = Callable[[str], Iterator[Match]]
Engine = Callable[[str], list[Match]]
_NEED_DIGITS: tuple[Detector, ...] = (
    identity_cards.find,
    phones.find,
    money.find,
    records.find,
    numbers.find,
    addresses_en.find,
)
_HAN_FIRST, _HAN_LAST = "\u4e00", "\u9fff"


def find(text: str, engines: Sequence[Engine] = ()) -> list[Match]:
    """Returns the identifiers of `text` in order, not overlapping; surrogates are none.

    Args:
        text: as it stands in the data.
        engines: others beside the rules; what they find counts where no rule has found anything.
    """
    folded = fold(text)
    plain = folded.text
    digits = any("0" <= c <= "9" for c in plain)
    han = any(_HAN_FIRST <= c <= _HAN_LAST for c in plain)
    found = list(emails.find(plain)) + list(names_en.find(plain))
    if digits:
        for detector in _NEED_DIGITS:
            found += detector(plain)
    if digits or han:
        found += births.find(plain)
    if han:
        found += names_zh.find(plain)
        found += addresses_zh.find(plain)
    taken = bytearray(len(plain))
    for start, end in reserved_spans(plain):
        taken[start:end] = b"\1" * (end - start)
    chosen: list[Match] = []
    for match in sorted(found, key=lambda m: (-m.certainty, m.start - m.end, m.start)):
        if 1 not in taken[match.start : match.end]:
            taken[match.start : match.end] = b"\1" * (match.end - match.start)
            chosen.append(match)
    for engine in engines:
        for match in engine(plain):
            if 1 not in taken[match.start : match.end]:
                taken[match.start : match.end] = b"\1" * (match.end - match.start)
                chosen.append(match)
    places = [(match, *folded.span(match.start, match.end)) for match in sorted(chosen, key=lambda m: m.start)]
    return [Match(match.kind, start, end, match.certainty) for match, start, end in places]
