"""What a chain shows of itself: one line for each stage, where its model lies and what was released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from configs.chain import EVALUATE, RELEASE
from configs.runfolder import RunFolder, read_json
from launch.chain import MADE, MODEL, ChainFolder, StageState
from launch.chain_states import current_states

if TYPE_CHECKING:
    from rich.console import Console

# Of a cause, in characters; the run's own page has all of it.
LONGEST = 200


def show_chain(screen: Console, chain: ChainFolder) -> None:
    """Prints one line per stage, and where the last model and the release are."""
    states = current_states(chain)
    done = sum(stage.state == "done" for stage in states)
    screen.print(Text(f"{chain.name}: {done} of {len(states)} stages done   {chain.path}"), soft_wrap=True)
    width = max(len(stage.name) for stage in states)
    for stage in states:
        style = "red" if stage.state in ("failed", "cancelled") else ""
        screen.print(Text(f"  {stage.name:<{width}}  {stage.state:<9} {line_of(chain, stage)}".rstrip(), style=style), soft_wrap=True)
    for key, path in products(chain, states):
        screen.print(Text(f"  {key:<{width}}  {path}"), soft_wrap=True)
    if any(stage.state == "failed" for stage in states):
        screen.print("when the cause is mended, the same command goes on where it stopped")


def line_of(chain: ChainFolder, stage: StageState) -> str:
    """Returns what came of a stage: its figures, or why it ended."""
    if stage.state != "done":
        cause = stage.cause.splitlines()[0] if stage.cause else ""
        return cause if len(cause) <= LONGEST else cause[: LONGEST - 1] + "…"
    run = RunFolder(chain.path / stage.run)
    took = f"   {stage.ended - stage.began:,.0f} s" if stage.ended and stage.began else ""
    if stage.kind != "train":
        return f"{', '.join(sorted(stage.made)) if stage.kind == EVALUATE else f'{len(stage.made)} files'}{took}"
    result = read_json(run.result_path) or {}
    return f"{figures(result)}{took}   {stage.run}"


def figures(result: dict[str, object]) -> str:
    """Returns `eval_loss 2.1 -> 1.9`, with the accuracy of a preference."""
    pairs = {"eval_loss": (result.get("eval_loss_before"), result.get("eval_loss"))}
    more = result.get("eval_figures")
    if isinstance(more, dict) and "accuracy" in more:
        pairs["accuracy"] = tuple(more["accuracy"])
    spelled = [f"{name} {_spell(before)} -> {_spell(after)}" for name, (before, after) in pairs.items() if after is not None]
    return "  ".join(spelled) or "not evaluated"


def _spell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"


def products(chain: ChainFolder, states: list[StageState]) -> list[tuple[str, str]]:
    """Returns where the newest model and the release are."""
    trained = [stage for stage in states if stage.kind == "train" and stage.state == "done"]
    found = [("model", str(chain.path / trained[-1].run / MODEL))] if trained else []
    released = [stage for stage in states if stage.kind == RELEASE and stage.state == "done"]
    return [*found, *(("release", str(chain.path / stage.run / MADE[RELEASE])) for stage in released)]
