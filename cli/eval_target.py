"""The model that a word of `aisc eval` means."""

from __future__ import annotations

from pathlib import Path

from configs.errors import UserError
from configs.runfolder import CHECKPOINT_PREFIX, RunFolder
from launch.runs import find_run, model_folder
from train.eval_target import CHECKPOINT, OTHER, RUN, Target


def find_target(text: str, parent: Path) -> Target:
    """Returns what `text` means: RUN, RUN@STEP, the folder of a checkpoint, or a model folder.

    Raises:
        UserError: there is no such thing.
    """
    path = Path(text).expanduser()
    if path.name.startswith(CHECKPOINT_PREFIX) and path.parent.name == "checkpoints":
        digits = path.name.removeprefix(CHECKPOINT_PREFIX)
        run = next((run for run in path.absolute().parents[3:4] if (run / "attempts").is_dir()), None)
        if run is not None and digits.isdecimal():
            return Target(CHECKPOINT, RunFolder(run), run / "model", int(digits))
        if not (path / "config.json").is_file():
            raise UserError(f"{text}: not the folder of a run's checkpoint")
    name, at, step = text.rpartition("@")
    if at and step.isascii() and step.isdigit() and not path.exists():
        run_folder = find_run(name, parent)
        return Target(CHECKPOINT, run_folder, run_folder.path / "model", int(step))
    folder = model_folder(text, parent)
    if folder.name == "model" and (folder.absolute().parent / "attempts").is_dir():
        return Target(RUN, RunFolder(folder.absolute().parent), folder)
    return Target(OTHER, None, folder)
