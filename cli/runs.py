"""`aisc runs`: list, show, compare. Reads files only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cli.screens import console, split_values
from configs.atomic import write_file
from configs.errors import UserError
from configs.runfolder import RunFolder, read_json, read_metrics, runs_dir
from launch.runs import RunSummary, all_runs, differing_keys, find_run, frozen_config, read_replies, summarize, timeline

if TYPE_CHECKING:
    from rich.console import Console

VERBS = ("list", "show", "compare")
SHOWN_EVENTS = 20


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    options, words = split_values(arguments, values=("--svg", "run.dir"), flags=("--replies",))
    verb, names = (words[0], words[1:]) if words and words[0] in VERBS else ("list" if not words else "show", words)
    parent = runs_dir(options.get("run.dir"))
    screen = console()
    if verb == "list":
        list_runs(screen, parent)
        return 0
    if not names:
        raise UserError(f"aisc runs {verb}: which run? There are: {', '.join(run.name for run in all_runs(parent)[:10]) or 'none'}")
    runs = [find_run(name, parent) for name in names]
    if verb == "compare":
        compare(screen, runs, options.get("--svg"))
    elif "--replies" in options:
        show_replies(screen, runs[0])
    else:
        for run in runs:
            show(screen, run)
    return 0


def list_runs(screen: Console, parent: Path) -> None:
    """Prints one line per run, newest first."""
    runs = [summarize(run) for run in all_runs(parent)]
    if not runs:
        screen.print(f"no runs in {parent}   (run.dir=FOLDER or $AISC_RUNS names another folder)")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name, justify in (("RUN", "left"), ("STATE", "left"), ("STEP", "right"), ("EVAL_LOSS", "left"), ("STARTED", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for run in runs:
        table.add_row(run.name, spell_state(run), f"{run.step:,}/{run.total_steps:,}", spell_loss(run), spell_date(run.started))
    screen.print(table)
    screen.print(Text("(in brackets: before training)   aisc runs show RUN"), style="dim")


def show(screen: Console, run: RunFolder) -> None:
    """Prints what a run did and what came out."""
    summary = summarize(run)
    result = read_json(run.result_path) or {}
    screen.print(Text(f"{run.name}   {summary.status}"), soft_wrap=True)
    rows = [("step", f"{summary.step:,} of {summary.total_steps:,}"), ("eval_loss", spell_loss(summary))]
    if result:
        rows += [
            ("best step", str(result["best_step"])),
            ("seen", f"{result['tokens']:,} tokens, {result['supervised']:,} supervised, ledger {result['ledger'][:12]}.."),
            ("model", str(run.path / "model")),
        ]
    report = run.path / "report.html"
    rows += [("report", str(report))] if report.exists() else []
    for key, value in rows:
        screen.print(Text(f"  {key:<10} {value}"), soft_wrap=True)
    events = timeline(run)
    if len(events) > SHOWN_EVENTS:
        screen.print(f"  ... {len(events) - SHOWN_EVENTS} earlier events: {run.path}/attempts/*/events.jsonl", style="dim")
    for event in events[-SHOWN_EVENTS:]:
        screen.print(Text(f"  {spell_clock(event['time'])}  {spell_event(event)}"), soft_wrap=True)


def show_replies(screen: Console, run: RunFolder) -> None:
    """Prints the answers to held-out prompts before the run and at its last evaluation."""
    replies = read_replies(run)
    if not replies:
        raise UserError(f"{run.name}: no replies; evaluation.replies=N asks N held-out prompts at each evaluation (sft)")
    first, last = min(r["step"] for r in replies), max(r["step"] for r in replies)
    for document in dict.fromkeys(reply["document"] for reply in replies):
        of_step = {reply["step"]: reply for reply in replies if reply["document"] == document}
        screen.print(Text(f"prompt   {_tail(of_step[first]['prompt'])}", style="bold"), soft_wrap=True)
        for label, step in ((f"step {first}", first), (f"step {last}", last)):
            screen.print(Text(f"{label:<9}{of_step[step]['reply']!s}"), soft_wrap=True)
        screen.print(Text(f"{'corpus':<9}{of_step[first]['answer']}\n", style="dim"), soft_wrap=True)


def compare(screen: Console, runs: list[RunFolder], svg: str | None) -> None:
    """Prints where the runs' settings differ and what came out; draws their losses with `--svg`."""
    if len(runs) < 2:
        raise UserError("aisc runs compare: give two runs or more")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("", *(run.name for run in runs)):
        table.add_column(name, overflow="fold")
    for key, values in differing_keys([frozen_config(run) for run in runs]):
        table.add_row(key, *(str(value) for value in values))
    summaries = [summarize(run) for run in runs]
    table.add_row("state", *(spell_state(summary) for summary in summaries))
    table.add_row("step", *(f"{summary.step:,}/{summary.total_steps:,}" for summary in summaries))
    table.add_row("eval_loss", *(spell_loss(summary) for summary in summaries))
    screen.print(table)
    if svg:
        from train.report.figures import compare_losses

        write_file(Path(svg), compare_losses({run.name: read_metrics(run.path) for run in runs}))
        screen.print(f"figure   {svg}", soft_wrap=True)


def spell_state(run: RunSummary) -> str:
    """Returns the state, with its cause when it is not a happy one."""
    if run.status.state in ("done", "running", "new") or not run.status.cause:
        return run.status.state
    cause = run.status.cause.splitlines()[0]
    return f"{run.status.state}: {cause if len(cause) <= 40 else cause[:39] + '…'}"


def spell_loss(run: RunSummary) -> str:
    """Returns `0.874 (1.846)`: now, and before training."""
    if run.eval_loss is None:
        return "-"
    before = f" ({run.eval_loss_before:.3f})" if run.eval_loss_before is not None else ""
    return f"{run.eval_loss:.3f}{before}"


def spell_event(event: dict[str, Any]) -> str:
    """Returns `attempt 2  saved  step 40`."""
    rest = {key: value for key, value in event.items() if key not in ("time", "event", "attempt") and value not in ("", None)}
    words = "  ".join(f"{key} {value}" for key, value in rest.items())
    return f"attempt {event['attempt']}  {event['event']}  {words}".rstrip()


def spell_date(seconds: float) -> str:
    """Returns local date and time to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"


def spell_clock(seconds: float) -> str:
    """Returns local time to the second."""
    return time.strftime("%H:%M:%S", time.localtime(float(seconds)))


def _tail(text: str, most: int = 300) -> str:
    return text if len(text) <= most else "… " + text[-most:]
