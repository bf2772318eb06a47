"""The gates between training and measuring: what every row is looked at for while it is read, and what is done about it.

`data.duplicates`: training rows that repeat held-out rows. `data.decontaminate`: training rows that hold evaluation items.
Only counts, file names and line numbers leave this module, never a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.atomic import sha256_file
from configs.errors import DataError
from configs.schema import DataSection
from data_pipelines import decontaminate, duplicates
from data_pipelines.decontaminate import Items, files_of, read_items
from data_pipelines.duplicates import AllMarks, Marks, Repeats, across, marks_of, within
from data_pipelines.sources import InputFile

CONTAMINATED = "dropped, holds an evaluation item"
# Places that an account or an error names.
SHOWN = 20
_SHOWN_IN_ERROR = 5


@dataclass(slots=True)
class Looked:
    """What the gates saw in a chunk or a source: marks of its rows; evaluation items met, lines and numbers of the rows with one."""

    marks: Marks = field(default_factory=Marks)
    leaks: list[int] = field(default_factory=list)
    leaking_rows: list[int] = field(default_factory=list)
    items: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Gates:
    """What rows are looked at for.

    Attributes:
        compares: whether rows get marks (data.duplicates).
        items: of data.decontaminate; None looks for none.
        drops_leaks: data.contaminated=drop.
        held_out_from: number of the first file of data.validation: an evaluation item in it does no harm.
    """

    compares: bool
    items: Items | None
    drops_leaks: bool
    held_out_from: int

    def look(self, file: int, lines: Sequence[int], texts: Sequence[str]) -> Looked:
        """Returns what the rows of a chunk hold, given their lines and texts."""
        looked = Looked(marks_of(lines, texts) if self.compares else Marks())
        if self.items is not None and file < self.held_out_from:
            for row, (line, item) in enumerate(zip(lines, self.items.found_in(texts), strict=True)):
                if item is not None:
                    looked.leaking_rows.append(row)
                    looked.leaks.append(line)
                    looked.items[item] += 1
        return looked


def make_gates(data: DataSection, *, held_out_from: int) -> Gates | None:
    """Returns the gates of a data section; None when nothing is to be looked at.

    Raises:
        DataError: a file of data.decontaminate cannot be used, or leaves nothing to look for.
    """
    compares = data.duplicates != "off" and data.validation != "none"
    items = read_items(data.decontaminate) if data.decontaminate else None
    if items is not None and not len(items.pieces):
        raise DataError(
            f"data.decontaminate={', '.join(data.decontaminate)}: every piece of its {items.num_items:,} items stands in "
            f"more than {decontaminate.MOST_ITEMS} of them, so none tells an item apart; give each item once"
        )
    if not compares and items is None:
        return None
    return Gates(compares, items, data.contaminated == "drop", held_out_from)


def identity(data: DataSection) -> dict[str, Any]:
    """Returns what the name of a prepared folder holds of the gates; nothing when there are none."""
    found: dict[str, Any] = {}
    if data.duplicates != "off" and data.validation != "none":
        found["duplicates"] = [data.duplicates, data.duplicate_similarity, duplicates.RULES_VERSION]
    if data.decontaminate:
        hashes = [[path.name, sha256_file(path)] for path in files_of(data.decontaminate)]  # the name says how it is read
        found["decontaminate"] = [data.contaminated, hashes, decontaminate.RULES_VERSION]
    return found


def refuse_leaks(data: DataSection, files: Sequence[InputFile], leaks: dict[int, list[int]]) -> None:
    """Raises DataError when data.contaminated=refuse and a training row holds an evaluation item."""
    count = sum(map(len, leaks.values()))
    if data.contaminated == "refuse" and count:
        places = [(file, line) for file in sorted(leaks) for line in leaks[file]]
        raise DataError(
            f"data.decontaminate: {count:,} training rows hold an evaluation item ({_lines(files, places)}); "
            "data.contaminated=drop leaves them out, counted, report only counts them"
        )


def leaks_account(
    data: DataSection, files: Sequence[InputFile], items: Items, leaks: dict[int, list[int]], met: Counter[int]
) -> dict[str, Any]:
    """Returns what an account says of data.decontaminate."""
    counts = Counter(Path(files[file].path).name for file in leaks)
    names = {file: path.name if counts[path.name] == 1 else str(path) for file in leaks for path in [Path(files[file].path)]}
    return {
        "done": data.contaminated,
        "files": [Path(path).name for path in data.decontaminate],
        "items": items.num_items,
        "too_short": items.num_items - items.checked,
        "pieces": len(items.pieces),
        "common_pieces": items.common_pieces,
        "rows": sum(map(len, leaks.values())),
        "items_met": len(met),
        "lines": {names[file]: leaks[file][:SHOWN] for file in sorted(leaks)},
    }


class Overlap:
    """Training documents that repeat held-out ones, and what is done about them.

    Args:
        data: mode and similarity.
        files: all input files.
        marks: of all rows.
        rows: number of each document's row in `marks` `[D]`; held_out: which documents are held out.

    Raises:
        DataError: data.duplicates=refuse and there are some.
    """

    def __init__(
        self,
        data: DataSection,
        files: Sequence[InputFile],
        marks: AllMarks,
        *,
        rows: NDArray[np.int64],
        held_out: NDArray[np.bool_],
    ) -> None:
        self._data, self._files, self._marks = data, files, marks
        self._held_rows = np.unique(rows[held_out])
        self._train_rows = np.setdiff1d(np.unique(rows[~held_out]), self._held_rows)
        self._found: Repeats = across(marks, self._train_rows, self._held_rows, data.duplicate_similarity)
        repeated = self._train_rows[self._found.any]
        self.documents = np.isin(rows, repeated) & ~held_out
        if data.duplicates == "refuse" and len(repeated):
            self._refuse(repeated)

    def _refuse(self, repeated: NDArray[np.int64]) -> None:
        exact = int(self._found.exact.sum())
        places = list(zip(self._marks.files[repeated].tolist(), self._marks.lines[repeated].tolist(), strict=True))
        raise DataError(
            f"data.validation: {len(repeated):,} of {len(self._train_rows):,} training rows repeat held-out rows, {exact:,} "
            f"exactly and {len(repeated) - exact:,} nearly ({_lines(self._files, places)}); data.duplicates=drop leaves them out "
            "of training, counted, report only counts them; data.duplicate_similarity says how near is near"
        )

    def account(self) -> dict[str, Any]:
        """Returns counts and the first places; rows that repeat each other inside the training part are counted too."""
        marks, found = self._marks, self._found
        inside = within(marks, self._train_rows[~found.any], self._data.duplicate_similarity)
        exact = int(found.exact.sum())
        pairs = [
            [*self._place(int(row)), *self._place(int(partner))]
            for row, partner in zip(self._train_rows[found.any][:SHOWN], found.partner[found.any][:SHOWN], strict=True)
        ]
        return {
            "done": self._data.duplicates,
            "similarity": self._data.duplicate_similarity,
            "training_rows": len(self._train_rows),
            "held_out_rows": len(self._held_rows),
            "exact": exact,
            "near": int(found.any.sum()) - exact,
            "inside_training_exact": int(inside.exact.sum()),
            "inside_training_near": int(inside.any.sum() - inside.exact.sum()),
            "lines": pairs,
        }

    def _place(self, row: int) -> tuple[str, int]:
        return Path(self._files[int(self._marks.files[row])].path).name, int(self._marks.lines[row])


def _lines(files: Sequence[InputFile], places: Sequence[tuple[int, int]]) -> str:
    """Returns the first places as `train.jsonl line 4, 17; more.jsonl line 3, ...`."""
    by_file: dict[int, list[str]] = {}
    for file, line in places[:_SHOWN_IN_ERROR]:
        by_file.setdefault(file, []).append(f"{line:,}")
    text = "; ".join(f"{Path(files[f].path).name} {files[f].place} {', '.join(lines)}" for f, lines in by_file.items())
    return text + (", ..." if len(places) > _SHOWN_IN_ERROR else "")
