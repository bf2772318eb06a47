"""What was learned from: every row read, left out, cut or held out, and how full the packed rows are."""

from __future__ import annotations

import json
from pathlib import Path

from configs.runfolder import RunFolder
from data_pipelines.account import Account
from data_pipelines.build import ACCOUNT_NAME
from train.report.section import Section


def section(run: RunFolder) -> Section | None:
    """Returns the account of the store that the newest attempt read; None when that store is gone."""
    starts = [start for attempt in run.attempts() if (start := attempt.read_start())]
    if not starts or "store_folder" not in starts[-1]:
        return None
    path = Path(starts[-1]["store_folder"]) / ACCOUNT_NAME
    if not path.is_file():
        return None
    account = Account.from_json(json.loads(path.read_text(encoding="utf-8")))
    rows = [("all", *_counts(account))] if len(account.sources) > 1 else []
    for name, source in account.sources.items():
        left_out = [f"{count:,} {reason}" for reason, count in source.bad.items()]
        left_out += [f"{count[0]:,} {policy} ({count[1]:,} learned tokens lost)" for policy, count in source.lost.items()]
        rows.append(
            (
                name,
                f"{source.rows:,}",
                f"{source.documents:,}",
                f"{source.tokens:,}",
                f"{source.supervised:,}",
                f"{source.share:.1%}",
                "; ".join(left_out) or "nothing",
            )
        )
    by = f" by {account.group_by}: {account.groups:,} and {account.held_out_groups:,} groups" if account.group_by else ""
    note = (
        f"{account.documents:,} documents to learn from, {account.held_out:,} held out{by}. Packed into "
        f"{account.packed_rows:,} rows of {account.sequence_length:,} tokens, {account.fill:.2%} full. "
        f"Store {starts[-1]['store'][:12]}."
    )
    header = ("source", "rows", "documents", "tokens", "learned", "share", "left out")
    return Section("Data", tuple(rows), header, note=" ".join([note, *account.notes]))


def _counts(account: Account) -> tuple[str, ...]:
    lost = f"{account.dropped:,} dropped, {account.truncated:,} truncated, {account.bad_rows:,} unusable"
    return (f"{account.rows:,}", f"{account.documents:,}", f"{account.tokens:,}", f"{account.supervised:,}", "100 %", lost)
