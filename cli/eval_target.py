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
        run = path.absolute().parents[3]
        if not digits.isdigit() or not (run / "attempts").is_dir():
            raise UserError(f"{text}: not the folder of a run's checkpoint")
        return Target(CHECKPOINT, RunFolder(run), run / "model", int(digits))
    name, at, step = text.rpartition("@")
    if at and step.isascii() and step.isdigit() and not path.exists():
        run_folder = find_run(name, parent)
        return Target(CHECKPOINT, run_folder, run_folder.path / "model", int(step))
    folder = model_folder(text, parent)
    if folder.name == "model" and (folder.absolute().parent / "attempts").is_dir():
        return Target(RUN, RunFolder(folder.absolute().parent), folder)
    return Target(OTHER, None, folder)
