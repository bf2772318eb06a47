"""`aisc train`: check, then run here, on one process per GPU."""

from __future__ import annotations

import importlib
import math
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from cli.configured import load_checked
from cli.screens import console, is_multirun, split_values
from configs import compose
from configs.reward import is_classifier, loads_with
from configs.runfolder import RunFolder, read_json, read_metrics, runs_dir, state_of
from configs.schema import RunConfig

if TYPE_CHECKING:
    from rich.console import Console

    from train.finish import Finished

FLAGS = ("--new", "--dry-run", "--smoke")
VALUES = ("--into",)


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    if is_multirun(arguments):
        code: int = importlib.import_module("cli.sweep").train(arguments)
        return code
    flags, rest = split_values(arguments, values=VALUES, flags=FLAGS)
    given = load_checked(rest, is_smoke="--smoke" in flags, trains=True)
    if "--into" in flags:  # a job's script: the folder was made when the job was submitted
        folder = RunFolder(Path(flags["--into"]))
    else:
        folder = run_folder(given.config, given.stem, is_new="--new" in flags or "--smoke" in flags)
    screen = console()
    if already_finished(screen, folder):
        return 0
    processes = given.config.engine.processes
    is_worker = "RANK" in os.environ or "SLURM_PROCID" in os.environ
    if not is_worker and isinstance(processes, int) and processes > 1:
        from launch.local import spawn

        return spawn(["train", *arguments], processes, folder)
    from train.run import Request, run

    request = Request(given.config, given.reasons, folder, "--dry-run" in flags, shlex.join(rest))
    code, finished = run(request, screen)
    if finished is not None:
        show_summary(screen, finished)
        if "--smoke" in flags:
            show_smoke_verdict(screen, RunFolder(finished.folder))
    return code


def run_folder(config: RunConfig, stem: str, *, is_new: bool) -> RunFolder:
    """Returns the folder of this run: that of its identity, or with `is_new` the first free `-2`, `-3`..."""
    name = compose.run_name(config, stem)
    parent = runs_dir(config.run.dir)
    path = parent / name
    number = 2
    while is_new and path.exists():
        path = parent / f"{name}-{number}"
        number += 1
    return RunFolder(path)


def already_finished(screen: Console, folder: RunFolder) -> bool:
    """Says so and returns True when this very run is done."""
    result = read_json(folder.result_path)
    if result is None or state_of(folder.path).state != "done":
        return False
    loss = f": eval_loss {result['eval_loss']:.3f}" if result["eval_loss"] is not None else ""
    screen.print(f"already finished{loss}   {folder.path}", soft_wrap=True)
    screen.print(f"Another seed: training.seed={result['seed'] + 1}   Again: --new")
    return True


def show_summary(screen: Console, finished: Finished) -> None:
    """Prints the end of a run: what it cost, how much better the model is, where everything lies."""
    from train.progress import spell_count, spell_time

    result, folder = finished.result, finished.folder
    name = folder.name
    screen.print(f"done  {spell_time(result['duration_s'])}\n")
    rows = []
    if result["eval_loss"] is not None:
        before = result["eval_loss_before"]
        change = f"{before:.3f} -> {result['eval_loss']:.3f}" if before is not None else f"{result['eval_loss']:.3f}"
        share = f"  {100 * (result['eval_loss'] / before - 1):+.1f} %" if before else ""
        rows.append(("eval_loss", f"{change}{share}   (step {result['best_step']}, exported)"))
        for key, (first, last) in result["eval_figures"].items():
            rows.append((key, f"{first:.3f} -> {last:.3f}" if first is not None else f"{last:.3f}"))
        if not result["eval_figures"]:
            rows.append(("perplexity", finished.perplexity + spell_sources(result["eval_loss_by_source"])))
    rows += [
        (
            "seen",
            f"{spell_count(result['tokens'])} tokens, {spell_count(result['supervised'])} supervised, "
            f"ledger {result['ledger'][:4]}..{result['ledger'][-2:]} ({result['steps']} steps)",
        ),
        *([("replies", f"held-out prompts before and after:   aisc runs show {name} --replies")] if finished.has_replies else []),
        ("model", f"{folder / 'model'}   {finished.exported.kind}"),
        ("report", str(folder / "report.html")),
    ]
    for key, text in rows:
        screen.print(f"  {key:<14} {text}", soft_wrap=True)
    if is_classifier(folder / "model"):
        screen.print(f"\nnext   aisc verify {name}          it scores answers and writes none, so no chat and no eval:", soft_wrap=True)
        screen.print(f"       {loads_with(folder / 'model')}", soft_wrap=True)
    else:
        screen.print(f"\nnext   aisc chat {name}          aisc export {name}", soft_wrap=True)


def spell_sources(losses: dict[str, float]) -> str:
    """Returns the perplexity of each source's held-out documents when there are several sources."""
    if len(losses) < 2:
        return ""
    return "   by source: " + "  ".join(f"{name} {math.exp(min(loss, 700)):.2f}" for name, loss in losses.items())


def show_smoke_verdict(screen: Console, folder: RunFolder) -> None:
    """Prints whether the model learned its few rows; raises RunFailed when it did not."""
    from configs.smoke import judge_smoke

    losses = [line["loss"] for line in read_metrics(folder.path) if "loss" in line]
    screen.print(judge_smoke(losses[0], losses[-1]))
