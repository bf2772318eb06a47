"""What was found of identifiers of people, and what was done about it: counts by kind and source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipelines.privacy.kinds import KINDS
from train.board.section import BoardSection, Table
from train.dossier import Dossier, Figure

DONE = {
    "report": "They were counted and left in the data as they are.",
    "mask": "They were replaced by surrogates, the same one wherever the same value stood, under a secret that is stored nowhere.",
    "drop": "Every document that holds one was left out.",
}
SIEVE = (
    "The search works by rules and lists: identity card numbers are found nearly always, names in the middle of a sentence about "
    "half the time (measured in docs/privacy.md of the software). It is a sieve, not a proof that nothing is left.",
)


def section(dossier: Dossier) -> BoardSection:
    """Returns the findings; says plainly when nobody looked."""
    title, title_zh = "Privacy", "私隱檢查結果"
    mode = str(dossier.account.get("privacy", "off"))
    if not dossier.account or mode == "off":
        return BoardSection(
            title, title_zh, missing=("Identifiers of people were not looked for in the data (data.privacy is off).",)
        )
    sources, origin = dossier.account["sources"], f"{dossier.account_origin}.sources"
    kinds = [kind for kind in KINDS if any(one.get("identifiers", {}).get(kind) for one in sources.values())]
    total = sum(sum(one.get("identifiers", {}).values()) for one in sources.values())
    documents = sum(one.get("private", 0) for one in sources.values())
    found = Figure(f"{total:,}", f"computed from {origin}.*.identifiers: their sum")
    where = Figure(f"{documents:,}", f"computed from {origin}.*.private: their sum")
    lead = (
        "Every text was searched for ",
        Figure(str(len(KINDS)), "data_pipelines/privacy/kinds.py: KINDS"),
        " kinds of identifiers of people. ",
    )
    said = (
        ("Found: ", found, " in ", where, f" documents. {DONE.get(mode, mode)}") if total else ("Found: ", found, ".")
    )
    return BoardSection(
        title,
        title_zh,
        sentences=((*lead, *said), SIEVE),
        facts=(("Mode", (Figure(mode, f"{dossier.account_origin}.privacy"),)),),
        tables=(_table(sources, kinds, origin),) if kinds else (),
    )


def _table(sources: Mapping[str, Any], kinds: list[str], origin: str) -> Table:
    rows = tuple(
        (KINDS[kind], name, Figure(f"{one['identifiers'][kind]:,}", f"{origin}.{name}.identifiers.{kind}"))
        for kind in kinds
        for name, one in sources.items()
        if one.get("identifiers", {}).get(kind)
    )
    header = ("kind", "source", Figure("found", f"{origin}.*.identifiers"))
    return Table("Identifiers found, by kind and source; what is not listed was not found.", header, rows)
