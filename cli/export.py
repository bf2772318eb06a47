"""`aisc export`: a run's model in another form: adapter merged, another dtype. Refused unless outputs agree."""

from __future__ import annotations

from pathlib import Path

from cli.screens import console, split_values
from configs.errors import UserError
from configs.runfolder import runs_dir
from launch.runs import model_folder

DTYPES = ("float32", "bfloat16", "float16")


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    options, words = split_values(arguments, values=("--dtype", "--to", "run.dir"), flags=("--merge",))
    if len(words) != 1:
        raise UserError("aisc export: expected one RUN or model FOLDER")
    dtype = options.get("--dtype")
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    source = model_folder(words[0], runs_dir(options.get("run.dir")))
    target = Path(options["--to"]) if "--to" in options else source.parent / "export"
    if target.exists():
        raise UserError(f"{target}: exists already; --to FOLDER names another one")
    from train.export import convert

    exported = convert(source, target, merge="--merge" in options, dtype_name=dtype)
    screen = console()
    size = f"{exported.size_bytes / 1e9:.2f} GB"
    screen.print(f"{exported.folder}   {exported.kind}, {size}, outputs agree", soft_wrap=True, markup=False)
    return 0
