"""`aisc train CHAIN.yaml`: stages one after another here, each from the former's verified output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from cli.chain_plan import ChainPlan, known_stages, make_plan, write_chain
from cli.chain_table import show_chain
from cli.configured import checked_here
from cli.screens import console, split_values
from configs.chain import RELEASE
from launch.chain import StageState
from launch.chain_alive import check_not_queued
from launch.chain_local import EXIT_CONTINUE, EXIT_DONE, Runner, run_stages
from launch.slurm_client import has_slurm
from launch.submit import aisc_command

if TYPE_CHECKING:
    from rich.console import Console

FLAGS = ("--dry-run",)
WHAT = {"evaluate": "aisc eval", RELEASE: "aisc export"}


def train(arguments: Sequence[str]) -> int:
    """Runs a chain on this machine; returns the exit code."""
    flags, words = split_values(arguments, flags=FLAGS)
    plan = make_plan(words, checked_here)
    screen = console()
    show_plan(screen, plan, "one after another here")
    if "--dry-run" in flags:
        screen.print("\ndry run: nothing was written, nothing was started")
        return EXIT_DONE
    chain, total = plan.chain, len(plan.names)

    def tell(stage: StageState, was_done: bool) -> None:
        number = plan.names.index(stage.name) + 1
        note = "done before, verified" if was_done else ("from " + stage.former if stage.former else "")
        screen.print(Text(f"\nstage {number} of {total}  {stage.name}   {note}".rstrip(), style="bold"), soft_wrap=True)

    with chain.held():
        if has_slurm() and known_stages(chain):
            check_not_queued(chain)
        write_chain(plan, "train", arguments)
        runner = Runner(chain, aisc_command())
        code = run_stages(chain, plan.words, runner, tell)
    screen.print()
    show_chain(screen, chain)
    if code == EXIT_CONTINUE:
        screen.print("stopped: saved. The same command continues.")
    return code


def show_plan(screen: Console, plan: ChainPlan, how: str) -> None:
    """Prints what the chain is: a line for each stage."""
    screen.print(f"{plan.chain.name}: {' -> '.join(plan.names)}, {how}", soft_wrap=True, markup=False)
    former = ""
    for stage in plan.stages:
        config = stage.config
        model = f"{former}'s model" if former else config.model.path or "random weights"
        adapter = f", {config.adapter.name}" if config.adapter.name != "none" else ""
        merged = " (merged: the next stage begins from it)" if stage.merges else ""
        data = config.data.train or ", ".join(config.data.sources)
        screen.print(
            f"  {stage.name:<10} {config.objective.name}{adapter}{merged}   {model}   {data}   {config.training.duration}",
            soft_wrap=True,
            markup=False,
        )
        former = stage.name
    for name, words in plan.words.items():
        screen.print(f"  {name:<10} {WHAT[name]} {former}'s run {' '.join(words)}".rstrip(), soft_wrap=True, markup=False)
    screen.print(f"  {'folder':<10} {plan.chain.path}", soft_wrap=True, markup=False)

