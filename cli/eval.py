"""`aisc eval`: held-out loss and perplexity of a run's model, or of any model folder on a run's held-out data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cli.screens import console, split_values
from configs.errors import UserError
from configs.runfolder import RunFolder, runs_dir
from launch.runs import find_run, model_folder

if TYPE_CHECKING:
    from rich.console import Console

    from train.evaluate_folder import FolderScore

DEVICES = ("cpu", "cuda")
DEFAULT_ROWS = 4


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    options, words = split_values(arguments, values=("--on", "--device", "--rows", "run.dir"))
    if len(words) != 1:
        raise UserError("aisc eval: expected one RUN or model FOLDER")
    parent = runs_dir(options.get("run.dir"))
    folder = model_folder(words[0], parent)
    on = options.get("--on")
    if on is None and (folder.parent / "attempts").is_dir():
        run = RunFolder(folder.parent)
    elif on is None:
        raise UserError(f"aisc eval {words[0]}: on which data? --on RUN takes what that run held out")
    else:
        run = find_run(on, parent)
    device, rows = options.get("--device"), options.get("--rows", str(DEFAULT_ROWS))
    if device is not None and device not in DEVICES:
        raise UserError(f"--device {device}: expected one of {', '.join(DEVICES)}")
    if not rows.isdigit() or int(rows) < 1:
        raise UserError(f"--rows {rows}: expected 1 or more packed rows at once")
    import torch

    from train.evaluate_folder import evaluate_folder, record

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no usable GPU here; aisc doctor says more")
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    score = evaluate_folder(folder, run, device=chosen, rows=int(rows))
    path = record(run, score)
    screen = console()
    show(screen, score, run)
    screen.print(f"  {'written':<12}{path}", soft_wrap=True, markup=False)
    return 0


def show(screen: Console, score: FolderScore, run: RunFolder) -> None:
    """Prints the figures."""
    lines = [
        ("model", f"{score.model}   {score.kind}"),
        ("held out", f"{run.name}: {score.documents:,} documents, {score.targets:,} learned tokens"),
        ("eval_loss", f"{score.loss:.4f}"),
        ("perplexity", f"{score.perplexity:.2f}" if score.perplexity is not None else "infinite"),
    ]
    if len(score.loss_by_source) > 1:
        lines += [(f"  {name}", f"{loss:.4f}   {math.exp(min(loss, 700)):.2f}") for name, loss in score.loss_by_source.items()]
    lines.append(("computed", f"on {score.device} in {score.precision}, {score.seconds:.1f} s"))
    for key, text in lines:
        screen.print(f"  {key:<12}{text}", soft_wrap=True, markup=False)
