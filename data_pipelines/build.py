"""From a data section to a prepared folder: read everything once, split, weigh, pack, publish.

All rows of all files are read before anything is decided: a bad row anywhere is reported together with all others and
leaves nothing behind. Tokens wait in a spill file meanwhile, a few numbers per document in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.atomic import write_file
from configs.errors import DataError
from configs.schema import DataSection
from configs.staged import staged
from data_pipelines.account import Account
from data_pipelines.assembly import Assembly
from data_pipelines.fingerprint import fingerprint, hash_files, tokenizer_files
from data_pipelines.gates import refuse_leaks
from data_pipelines.index import Store, open_part
from data_pipelines.privacy import report as privacy_report
from data_pipelines.problems import BadRows, BadRowsError
from data_pipelines.scanning import Progress, Scan, make_reader, scan
from data_pipelines.sources import InputFile, find_files
from data_pipelines.split import share_of
from data_pipelines.store import build_once
from data_pipelines.tokenize import read_template

HELD_OUT_SOURCE = "validation"
ACCOUNT_NAME = "account.json"


@dataclass(slots=True)
class Prepared:
    """Data ready to train on.

    Attributes:
        train: the packed training rows; validation: the held-out ones, None when there are none.
        account: what was read, left out and kept.
        fingerprint: 64 hex digits; the name of `folder`, an absolute path, starts with it.
        input_files: every data file read, with `input_hashes` their SHA-256.
    """

    train: Store
    validation: Store | None
    account: Account
    fingerprint: str
    folder: Path
    input_files: list[Path]
    input_hashes: dict[Path, str]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files of a data section. `held_out_from` is the number of the first one that data.validation names."""

    files: list[InputFile]
    held_out_from: int
    share: float

    @property
    def paths(self) -> list[Path]:
        return [path for file in self.files for path in file.hashed_paths()]


def prepare(
    data: DataSection,
    objective: str,
    tokenizer_path: str,
    *,
    seed: int,
    on_progress: Progress | None = None,
    command: str = "RUN.yaml",
) -> Prepared:
    """Returns the prepared data, building its folder unless it is there.

    Args:
        data: the section.
        objective: sft (assistant turns are learned) or cpt (everything is).
        tokenizer_path: folder of the tokenizer.
        seed: of the split and of fractional weights.
        on_progress: called with (stage, bytes done, bytes in all).
        command: what the user gave to `aisc`, for the advice in an error.

    Raises:
        DataError: rows, files, template or tokenizer cannot be used; nothing was written.
    """
    inputs = find_inputs(data)
    name, hashes = identify(data, objective, tokenizer_path, inputs, seed=seed)
    folder = folder_of(data, name)

    def build(temporary: Path) -> None:
        _build(
            temporary,
            data,
            objective,
            tokenizer_path,
            inputs=inputs,
            name=name,
            seed=seed,
            on_progress=on_progress,
            command=command,
        )

    build_once(folder, build, on_wait=_waiting(on_progress))
    return _open(folder, name, inputs.paths, hashes)


def _waiting(on_progress: Progress | None) -> Callable[[float], None]:
    def wait(seconds: float) -> None:
        if on_progress:
            on_progress("waiting for another process that builds this store", int(seconds), 0)

    return wait


def _open(folder: Path, name: str, paths: Sequence[Path], hashes: dict[Path, str]) -> Prepared:
    place = staged(folder)
    train = open_part(place, "train")
    if train is None or train.fingerprint != name:
        raise DataError(f"{folder}: not the store it should be; delete it to rebuild")
    try:
        account = Account.from_json(json.loads((folder / ACCOUNT_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder / ACCOUNT_NAME}: damaged ({error}); delete {folder} to rebuild") from error
    unique = list(dict.fromkeys(paths))
    return Prepared(
        train, open_part(place, "validation"), account, name, folder.absolute(), unique, {p: hashes[p] for p in unique}
    )


def identify(
    data: DataSection, objective: str, tokenizer_path: str, inputs: Inputs, *, seed: int
) -> tuple[str, dict[Path, str]]:
    """Returns the fingerprint of the prepared data, and the SHA-256 of every file that it hashed."""
    tokenizer = tokenizer_files(tokenizer_path)
    hashes = hash_files([*inputs.paths, *tokenizer])
    template = read_template(data.chat_template)
    name = fingerprint(
        data, objective, files=inputs.files, hashes=hashes, tokenizer=tokenizer, template=template, seed=seed
    )
    return name, hashes


def folder_of(data: DataSection, name: str) -> Path:
    """Returns where the data of fingerprint `name` is prepared."""
    return stores_dir(data.store) / name[:20]


def stores_dir(setting: str | None) -> Path:
    """Returns the folder that holds prepared folders: data.store, else $AISC_STORES, else ./stores."""
    return Path(setting or os.environ.get("AISC_STORES") or "stores").expanduser()


def find_inputs(data: DataSection) -> Inputs:
    """Returns all input files, training first.

    Raises:
        DataError: no source, a path without files, or a malformed data.validation.
    """
    sources = data.named_sources()
    if not sources:
        raise DataError("no data: give data=FILE, data.train=PATH or data.sources.NAME.path=PATH")
    files = [file for name, source in sources.items() for file in find_files(name, source.path, online=data.online)]
    share = share_of(data.validation)
    held_out = [] if share is not None else find_files(HELD_OUT_SOURCE, data.validation, online=data.online)
    return Inputs(files + held_out, len(files), share or 0.0)


def find_bad_rows(
    data: DataSection, objective: str, tokenizer_path: str, *, on_progress: Progress | None = None
) -> BadRows:
    """Returns every unusable row of every file; writes nothing.

    Raises:
        DataError: files, template or tokenizer cannot be used.
    """
    inputs = find_inputs(data)
    reader, _ = make_reader(data, objective, tokenizer_path, inputs.files)
    return scan(reader, data, on_progress=on_progress, keep=None).bad


def _build(
    temporary: Path,
    data: DataSection,
    objective: str,
    tokenizer_path: str,
    *,
    inputs: Inputs,
    name: str,
    seed: int,
    on_progress: Progress | None,
    command: str,
) -> None:
    """Fills the temporary folder with the parts and the account."""
    reader, vocab_size = make_reader(
        data, objective, tokenizer_path, inputs.files, held_out_from=inputs.held_out_from
    )
    spill = temporary / "spill"
    spill.mkdir(mode=0o700)
    found = scan(reader, data, on_progress=on_progress, keep=spill)
    refuse(found, data, command)
    refuse_leaks(data, found.files, found.leaks)
    assembly = Assembly(data, found, held_out_from=inputs.held_out_from, share=inputs.share, seed=seed)
    if on_progress:
        on_progress("packing", 0, 0)
    account = assembly.account(objective)
    if data.privacy != "off":
        write_file(temporary / privacy_report.NAME, privacy_report.to_json(data.privacy, found.private))
    assembly.write(temporary, fingerprint=name, vocab_size=vocab_size, account=account)
    write_file(temporary / ACCOUNT_NAME, json.dumps(account.to_json(), indent=1, ensure_ascii=False))
    found.close()
    for path in spill.iterdir():
        path.unlink()
    spill.rmdir()


def refuse(found: Scan, data: DataSection, command: str) -> None:
    """Raises when there are more unusable rows than data.max_bad_rows, or a file that cannot be read to its end."""
    whole_files = any(row.ends_file for row in found.bad.rows)
    if whole_files or len(found.bad) > data.max_bad_rows:
        raise BadRowsError(found.bad, allowed=data.max_bad_rows, command=command)
