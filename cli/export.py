"""`aisc export`: a run's model in another form, or as a release with its cards. Refused unless outputs agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli.screens import console, split_values
from configs.errors import UserError
from configs.runfolder import RunFolder, runs_dir
from launch.runs import find_run, model_folder

DTYPES = ("float32", "bfloat16", "float16")


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    licences, rest = split_licences(arguments)
    flags = ("--merge", "--release")
    options, words = split_values(rest, values=("--dtype", "--to", "--licence", "run.dir"), flags=flags)
    if len(words) != 1:
        raise UserError("aisc export: expected one RUN or model FOLDER")
    dtype = options.get("--dtype")
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    parent, merge = runs_dir(options.get("run.dir")), "--merge" in options
    if "--release" in options:
        if "--to" in options:
            raise UserError("--to: a release lies in the run's folder; leave it out and copy RUN/release afterwards")
        return make_release(find_run(words[0], parent), merge=merge, dtype=dtype, licences=licences)
    if licences:
        raise UserError("--licence: is said for a release; expected --release too")
    source = model_folder(words[0], parent)
    target = Path(options["--to"]) if "--to" in options else source.parent / "export"
    if target.exists():
        raise UserError(f"{target}: exists already; --to FOLDER names another one")
    return write_form(source, target, merge=merge, dtype=dtype)


def split_licences(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns (licence by source, other words) of `--licence SOURCE=TEXT`, which may be there several times.

    Raises:
        UserError: one without a source or a text.
    """
    licences: dict[str, str] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option != "--licence":
            rest.append(word)
            continue
        name, _, text = (value if equals else next(words, "")).partition("=")
        if not name or not text.strip():
            raise UserError("--licence: expected SOURCE=LICENCE after it, such as --licence train=CC-BY-4.0")
        licences[name] = text.strip()
    return licences, rest


def write_form(source: Path, target: Path, *, merge: bool, dtype: str | None) -> int:
    """Writes a model folder in another form; a run's is held against the run's own checkpoint while that is there."""
    from train.export import convert
    from train.parity_run import checkpoint_or_none

    run = RunFolder(source.parent)
    trained = checkpoint_or_none(run) if source.name == "model" and (run.path / "attempts").is_dir() else None
    exported = convert(source, target, merge=merge, dtype_name=dtype, trained=trained)
    size, screen = f"{exported.size_bytes / 1e9:.2f} GB", console()
    against = "the run's checkpoint" if trained else "the folder it was made from"
    screen.print(f"{exported.folder}   {exported.kind}, {size}, outputs agree", soft_wrap=True, markup=False)
    parity = exported.parity or {}
    screen.print(
        f"  with {against}: logits within {parity['logits']:.1e} (bound {parity['bound']:.0e}), "
        f"{parity['texts_equal']} of {parity['texts']} greedy texts equal",
        soft_wrap=True,
        markup=False,
    )
    return 0


def make_release(run: RunFolder, *, merge: bool, dtype: str | None, licences: dict[str, str]) -> int:
    """Writes RUN/release, or says that it is there."""
    from train.release import release

    made = release(run, merge=merge, dtype_name=dtype, licences=licences)
    note = "" if made.is_new else "   (released before, nothing changed since)"
    screen = console()
    screen.print(f"{made.folder}   {made.kind}, {made.num_files} files, outputs agree{note}", soft_wrap=True, markup=False)
    screen.print(f"  check it any time: aisc verify {run.name}", soft_wrap=True, markup=False)
    return 0
