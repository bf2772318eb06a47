"""What the model learned from: sources, licences, counts, hashes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.board.charts import share_bars
from train.board.section import BoardSection, Chart, Table
from train.dossier import MANIFEST, Dossier, Figure, short

SHOWN_FILES = 20


def section(dossier: Dossier) -> BoardSection:
    """Returns the sources with what was read, used and left out."""
    account, origin = dossier.account, dossier.account_origin
    title, title_zh = "Data", "數據來源"
    if not account:
        return BoardSection(
            title, title_zh, missing=("The account of the data is not there: the run has not prepared its data.",)
        )
    sources = account["sources"]
    missing = tuple(
        f"The licence of the data source {name} is not stated."
        for name, one in sources.items()
        if not licence(dossier, name, one)[0]
    )
    held_out = Figure(f"{account['held_out']:,}", f"{origin}.held_out")
    learned = Figure(f"{account['documents']:,}", f"{origin}.documents")
    charts = (Chart(*share_bars({name: one["share"] for name, one in sources.items()})),) if len(sources) > 1 else ()
    return BoardSection(
        title,
        title_zh,
        sentences=(
            (
                "The model learned from ",
                learned,
                " documents; ",
                held_out,
                " more were held out to measure it and never learned.",
            ),
        ),
        tables=(_sources(dossier, sources), *_files(dossier)),
        charts=charts,
        missing=missing,
    )


def licence(dossier: Dossier, name: str, source: Mapping[str, Any]) -> tuple[str, str]:
    """Returns a source's licence and where it is stated; empty texts when nobody stated one."""
    if dossier.licences.get(name):
        return str(dossier.licences[name]), f"licences.json: {name}"
    if source.get("licence"):
        return str(source["licence"]), f"{dossier.account_origin}.sources.{name}.licence"
    sections = dossier.section("data")
    own = sections.get("sources", {}).get(name) or {}
    for values, key in ((own, f"data.sources.{name}.licence"), (sections, "data.licence")):
        if values.get("licence"):
            return str(values["licence"]), f"{dossier.config_origin}: {key}"
    return "", ""


def left_out(source: Mapping[str, Any]) -> str:
    """Returns what of a source was left out or cut, and why."""
    parts = [f"{count:,} {reason}" for reason, count in source.get("bad", {}).items()]
    parts += [f"{documents:,} {policy}" for policy, (documents, _) in source.get("lost", {}).items()]
    if source.get("also_held_out"):
        parts.append(f"{source['also_held_out']:,} also held out")
    return "; ".join(parts) or "nothing"


def _sources(dossier: Dossier, sources: Mapping[str, Any]) -> Table:
    origin = f"{dossier.account_origin}.sources.*"
    rows = []
    for name, one in sources.items():
        stated, where = licence(dossier, name, one)
        at = origin.replace("*", name)
        rows.append(
            (
                Figure(name, at),
                Figure(stated, where) if stated else "not stated",
                Figure(f"{one['rows']:,}", f"{at}.rows"),
                Figure(f"{one['documents']:,}", f"{at}.documents"),
                Figure(f"{one['tokens']:,}", f"{at}.tokens"),
                Figure(f"{one['share']:.1%}", f"{at}.share"),
                Figure(left_out(one), f"{at}.bad, lost, also_held_out"),
            )
        )
    header = (
        "source",
        "licence",
        Figure("rows read", f"{origin}.rows"),
        Figure("documents", f"{origin}.documents"),
        Figure("tokens", f"{origin}.tokens"),
        Figure("share", f"{origin}.share"),
        Figure("left out", f"{origin}.bad, lost, also_held_out"),
    )
    return Table("Sources of the training data. A token is a piece of a word.", header, tuple(rows))


def _files(dossier: Dossier) -> tuple[Table, ...]:
    files = dossier.manifest.get("data", {})
    if not files:
        return ()
    rows = tuple(
        (Path(path).name, Figure(short(digest), f"{MANIFEST}: data"))
        for path, digest in list(files.items())[:SHOWN_FILES]
    )
    more = f"; {len(files) - SHOWN_FILES:,} more are in {MANIFEST}" if len(files) > SHOWN_FILES else ""
    caption = (
        f"Files read, with the first twelve characters of their SHA-256{more}. The same file always has the same one."
    )
    return (Table(caption, ("file", Figure("SHA-256", f"{MANIFEST}: data")), rows),)
