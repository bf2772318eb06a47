"""What shows that the model was not measured on what it had learned: groups, duplicates, evaluation items in the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipelines.gate_lines import DONE, done_with
from train.board.section import BoardSection, Words
from train.dossier import Dossier, Figure, short


def section(dossier: Dossier) -> BoardSection:
    """Returns the proof of the split as far as the account has it."""
    title, title_zh = "Proof that training and test data are apart", "訓練與測試數據分隔證明"
    account = dossier.account
    if not account:
        return BoardSection(title, title_zh, missing=("The account of the data is not there: the split is not shown.",))
    if not account.get("held_out"):
        return BoardSection(
            title,
            title_zh,
            missing=("Nothing was held out: the model has not been measured on unseen data of its kind.",),
        )
    facts, missing = [_groups(dossier)], []
    for part, absent in (
        (_proof(dossier), "No group proof: the account does not compare the groups of the two sides."),
        (_duplicates(dossier), "Duplicates between training and held-out data were not looked for."),
        (
            _contamination(dossier),
            "Items of the evaluation tasks were not looked for in the training data (data.decontaminate is empty).",
        ),
    ):
        facts += part
        missing += [] if part else [absent]
    return BoardSection(title, title_zh, facts=tuple(facts), missing=tuple(missing))


def _groups(dossier: Dossier) -> tuple[str, Words]:
    account, origin = dossier.account, dossier.account_origin
    learned, held = (
        Figure(f"{account['groups']:,}", f"{origin}.groups"),
        Figure(f"{account['held_out_groups']:,}", f"{origin}.held_out_groups"),
    )
    if account.get("group_by"):
        by = Figure(str(account["group_by"]), f"{origin}.group_by")
        return "Split by", (
            by,
            ": all rows of equal ",
            str(account["group_by"]),
            " are on one side; ",
            learned,
            " groups learned, ",
            held,
            " held out",
        )
    return "Split by", (
        Figure("content", f"{origin}.group_by"),
        ": equal rows are on one side; ",
        learned,
        " learned, ",
        held,
        " held out",
    )


def _proof(dossier: Dossier) -> list[tuple[str, Words]]:
    proof: Mapping[str, Any] = dossier.account.get("split") or {}
    if not proof:
        return []
    origin = f"{dossier.account_origin}.split"
    both = Figure(f"{proof['on_both_sides']:,}", f"{origin}.on_both_sides")
    hashes: Words = (
        "learned ",
        Figure(short(proof["trained_sha256"]), f"{origin}.trained_sha256"),
        ", held out ",
        Figure(short(proof["held_out_sha256"]), f"{origin}.held_out_sha256"),
    )
    return [("Groups on both sides", (both,)), ("SHA-256 of the two sets of groups", hashes)]


def _duplicates(dossier: Dossier) -> list[tuple[str, Words]]:
    found: Mapping[str, Any] = dossier.account.get("duplicates") or {}
    if not found:
        return []
    origin = f"{dossier.account_origin}.duplicates"
    words: Words = (
        Figure(f"{found['exact']:,}", f"{origin}.exact"),
        " exact and ",
        Figure(f"{found['near']:,}", f"{origin}.near"),
        " near repeats of held-out rows among ",
        Figure(f"{found['training_rows']:,}", f"{origin}.training_rows"),
        " training rows (near: similarity from ",
        Figure(f"{found['similarity']:g}", f"{origin}.similarity"),
        ")",
    )
    if found["exact"] + found["near"]:
        also_held_out = sum(one.get("also_held_out", 0) for one in dossier.account["sources"].values())
        words = (*words, "; these were ", Figure(done_with(found, also_held_out), f"computed from {origin}.done and sources.*.also_held_out"))
    return [("Duplicates across the split", words)]


def _contamination(dossier: Dossier) -> list[tuple[str, Words]]:
    found: Mapping[str, Any] = dossier.account.get("contamination") or {}
    if not found:
        return []
    origin = f"{dossier.account_origin}.contamination"
    words: Words = (
        Figure(f"{found['rows']:,}", f"{origin}.rows"),
        " training rows held one of ",
        Figure(f"{found['items'] - found['too_short']:,}", f"computed from {origin}.items, too_short: the difference"),
        " items; ",
        Figure(f"{found['too_short']:,}", f"{origin}.too_short"),
        " items are too short or too common to look for",
        f"; these were {DONE[str(found['done'])]}" if found["rows"] else "",
    )
    return [("Evaluation items in the training data", words)]
