"""From documents as read to the two parts of a prepared folder: who is held out, how often each appears, the account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from configs.schema import DataSection
from data_pipelines.account import KINDS, Account, SourceAccount
from data_pipelines.gates import Overlap, leaks_account
from data_pipelines.index import Store
from data_pipelines.mismatches import fill_labelled
from data_pipelines.privacy.report import Found, by_kind
from data_pipelines.scanning import Scan
from data_pipelines.split import copies, hold_out, proof
from data_pipelines.store import StoreWriter

_BLOCK_TOKENS = 8 << 20


class Assembly:
    """Decides the side and the number of copies of every document, then writes both parts.

    Args:
        data: weights, grouping and packing.
        found: the documents.
        held_out_from: number of the first held-out file; documents of these are held out as they are.
        share: share of the groups to hold out when there is no such file, 0 to 1.
        seed: of the split and of fractional weights.

    Raises:
        DataError: nothing to train on, one group only, or a group on both sides.
    """

    def __init__(self, data: DataSection, found: Scan, *, held_out_from: int, share: float, seed: int) -> None:
        self._data = data
        self._found = found
        self._sections = data.named_sources()
        self.sources = list(dict.fromkeys(file.source for file in found.files))
        self._source_of_file = np.array([self.sources.index(file.source) for file in found.files], np.int64)
        self._source = self._source_of_file[found.file_of]
        # Documents of one row: 2 in pairs.
        self._per_item = found.answers.per_item if found.answers else 1
        if not len(found.lengths):
            raise DataError("data: no document is left to learn from; see the rows that were left out")
        from_file = found.file_of >= held_out_from
        if held_out_from < len(found.files):
            self.held_out = from_file
            self.duplicates = self._on_both_sides(from_file)
        else:
            self.held_out = hold_out(found.groups, share, seed)
            self.duplicates = np.zeros(len(found.lengths), np.bool_)
        self._overlap = self._compared()
        if self._overlap and data.duplicates == "drop":
            self.duplicates = self.duplicates | self._overlap.documents
        self.copies = self._copies(seed)
        if self.duplicates.any() and not self.copies[~self.held_out].any():
            raise DataError("data.validation: every training document is held out too; nothing is left to learn from")
        if not self.copies[~self.held_out].any():
            raise DataError(
                "data: no training document is left; every one is held out, or its source's weight is too small"
            )
        if self.held_out.any() and not found.supervised[self.held_out].any():
            raise DataError("data.validation: nothing in the held-out rows can be learned, so it cannot be measured")

    def _on_both_sides(self, from_file: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns True for training documents whose content is held out too; a group on both sides is an error."""
        both = np.isin(self._found.groups, self._found.groups[from_file]) & ~from_file
        if self._data.group_by and both.any():
            groups = len(np.unique(self._found.groups[both]))
            rows = list(dict.fromkeys(self._found.rows[both].tolist()))
            lines = ", ".join(f"{line:,}" for line in rows[:5])
            raise DataError(
                f"data.validation: {groups:,} values of {self._data.group_by} are held out and trained on too "
                f"(training lines {lines}{', ...' if len(rows) > 5 else ''}); keep each on one side"
            )
        return both

    def _compared(self) -> Overlap | None:
        """Returns which training documents repeat held-out ones; None when that is not looked for."""
        found = self._found
        if found.marks is None or not self.held_out.any() or self.held_out.all():
            return None
        return Overlap(self._data, found.files, found.marks, rows=found.marked, held_out=self.held_out)

    def _copies(self, seed: int) -> NDArray[np.int64]:
        """Returns how often each document is written: by weight in training, once when held out."""
        weights = np.array([self._sections[name].weight if name in self._sections else 1.0 for name in self.sources])
        # A document's own number: its place in its source, so that other sources do not move it.
        identities = np.zeros(len(self._source), np.int64)
        for number in range(len(self.sources)):
            mine = self._source == number
            identities[mine] = np.arange(mine.sum()) // self._per_item + (number << 40)
        times = copies(weights[self._source], identities, seed)
        times[self.held_out] = 1
        times[self.duplicates] = 0
        return times

    def write(self, folder: Path, *, fingerprint: str, vocab_size: int, account: Account) -> None:
        """Writes `train/` and, when something is held out, `validation/`; completes the account's packing."""
        found = self._found
        for part, side, chosen in (("train", "to learn from", ~self.held_out), ("validation", "held out", self.held_out)):
            if not chosen.any():
                continue
            writer = StoreWriter(
                folder / part,
                fingerprint=fingerprint,
                sequence_length=self._data.sequence_length,
                sources=self.sources,
                vocab_size=vocab_size,
                packing=self._data.packing,
            )
            times = np.where(chosen, self.copies, 0)
            if found.answers is not None and self._per_item == 1:
                cut = fill_labelled(writer, found, self._source, times, self._data.sequence_length, side=side)
                account.mismatched_cut += cut
            else:
                self._fill(writer, times)
            writer.finish({})
            store = Store(folder / part)
            if part == "train":
                account.packed_rows, account.fill = store.num_rows, store.fill
            else:
                account.held_out_packed_rows = store.num_rows
            if found.answers is not None:
                self._count_with_others(account, part, store)

    @staticmethod
    def _count_with_others(account: Account, part: str, store: Store) -> None:
        """Counts the tokens of answers as they are written: mismatched ones, which no row holds, are among them."""
        if part == "train":
            account.tokens, account.supervised = store.tokens, store.supervised
        else:
            account.held_out_tokens, account.held_out_supervised = store.tokens, store.supervised

    def _fill(self, writer: StoreWriter, times: NDArray[np.int64]) -> None:
        """Adds every document `times` times, a block of some millions of tokens at once."""
        found = self._found
        assert found.ids is not None and found.mask is not None
        ends = np.cumsum(found.lengths)
        block_of = np.repeat((ends[self._per_item - 1 :: self._per_item] - 1) // _BLOCK_TOKENS, self._per_item)
        first = 0
        for last in [*(np.flatnonzero(np.diff(block_of)) + 1), len(ends)]:
            begin = int(ends[first] - found.lengths[first])
            ids, mask = found.ids[begin : ends[last - 1]], found.mask[begin : ends[last - 1]]
            for copy in range(int(times[first:last].max(initial=0))):
                chosen = times[first:last] > copy
                tokens = np.repeat(chosen, found.lengths[first:last])
                columns: dict[str, NDArray[Any]] = {
                    "source": self._source[first:last][chosen],
                    "group": found.groups[first:last][chosen],
                    "row": found.rows[first:last][chosen],
                }
                lengths = found.lengths[first:last][chosen]
                if found.answers is not None:
                    columns |= {
                        "role": found.answers.role[first:last][chosen],
                        "margin": found.answers.margin[first:last][chosen],
                    }
                writer.add_many(ids[tokens], mask[tokens], lengths, **columns)
            first = int(last)

    def account(self, objective: str) -> Account:
        """Returns the account, all but the packing."""
        found = self._found
        account = Account(objective=objective, group_by=self._data.group_by, sequence_length=self._data.sequence_length)
        account.privacy = self._data.privacy
        trained = ~self.held_out & (self.copies > 0)
        times = np.where(trained, self.copies, 0)
        account.rows = found.bad.rows_read
        account.bad_rows = len(found.bad)
        account.documents = int(times.sum()) // self._per_item
        account.held_out = int(self.held_out.sum()) // self._per_item
        account.groups = len(np.unique(found.groups[trained]))
        account.held_out_groups = len(np.unique(found.groups[self.held_out]))
        account.split = proof(found.groups[trained], found.groups[self.held_out])
        if self._overlap:
            account.duplicates = self._overlap.account()
        if found.gates and found.gates.items:
            account.contamination = leaks_account(
                self._data, found.files, found.gates.items, found.leaks, found.items_met
            )
        account.tokens = int((times * found.lengths).sum())
        account.supervised = int((times * found.supervised).sum())
        account.held_out_tokens = int(found.lengths[self.held_out].sum())
        account.held_out_supervised = int(found.supervised[self.held_out].sum())
        bad = found.bad.by_reason()
        for number, name in enumerate(self.sources):
            account.sources[name] = self._source_account(number, name, times, bad.get(name, {}), account.tokens)
        duplicates = int(self.duplicates.sum()) // self._per_item
        if duplicates and (not self._overlap or self._data.duplicates == "report"):
            what = "documents" if found.answers is None else KINDS[objective]
            account.notes.append(f"{duplicates:,} training {what} are also in data.validation: left out of training")
        return account

    def _source_account(
        self, number: int, name: str, times: NDArray[np.int64], bad: dict[str, int], all_tokens: int
    ) -> SourceAccount:
        found = self._found
        mine = self._source == number
        section = self._sections.get(name)
        private = found.private.get(name, Found())
        tokens = int((times * found.lengths)[mine].sum())
        return SourceAccount(
            path=section.path if section else self._data.validation,
            weight=section.weight if section else 1.0,
            format=found.formats.get(name, ""),
            rows=found.rows_by_source.get(name, 0),
            bad=bad,
            lost={policy: [lost.documents, lost.supervised] for policy, lost in found.lost.get(name, {}).items()},
            identifiers=by_kind(private.identifiers),
            private=private.documents,
            also_held_out=int((self.duplicates & mine).sum()) // self._per_item,
            documents=int(times[mine].sum()) // self._per_item,
            tokens=tokens,
            supervised=int((times * found.supervised)[mine].sum()),
            share=tokens / all_tokens if all_tokens else 0.0,
        )
