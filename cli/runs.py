"""`aisc runs`: list, show, follow, stop, resume, retry, compare, goodput. What Slurm says is asked once, and is not needed."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cli.screens import console, split_values
from configs.atomic import write_file
from configs.errors import UserError
from configs.runfolder import RunFolder, read_json, read_metrics, runs_dir
from configs.values import nearest
from launch.chain import ChainFolder, all_chains, find_chain
from launch.chain_states import current_states
from launch.explain import explain
from launch.listing import Row, list_rows, sweep_hours
from launch.live import Accounts, ask_accounts, ask_queue, jobs_of
from launch.runs import RunSummary, all_runs, differing_keys, find_run, frozen_config, read_replies, summarize, timeline
from launch.sweep import Sweep, SweepSummary, all_sweeps, find_sweep, summarize_sweep
from launch.words import spell_hours, spell_share

if TYPE_CHECKING:
    from rich.console import Console

VERBS = ("list", "show", "follow", "stop", "resume", "retry", "compare", "goodput")
SHOWN_EVENTS = 20
# What `show` does instead of telling what happened.
FLAGS = ("--replies", "--board", "--paper")
# Left out of the list from the right on a terminal that is too narrow for all.
COLUMNS = ("RUN", "STATE", "STEP", "EVAL_LOSS", "LEFT", "GPU-h", "TRAINED")
ORDER = ("RUN", "STATE", "STEP", "EVAL_LOSS", "GPU-h", "TRAINED", "LEFT")
RIGHT = ("GPU-h", "TRAINED", "LEFT")


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    values = ("--svg", "--project", "--month", "run.dir")
    options, words = split_values(arguments, values=values, flags=FLAGS)
    verb, names = (words[0], words[1:]) if words and words[0] in VERBS else ("list" if not words else "show", words)
    parent = runs_dir(options.get("run.dir"))
    if verb == "show" and names is words and len(words) > 1 and not (parent / words[0]).exists() and (close := nearest(words[0], VERBS)):
        raise UserError(f"aisc runs {words[0]}: no such word, and no run of that name; did you mean {close}?")
    screen = console()
    if verb == "list":
        list_runs(screen, parent)
        return 0
    if verb == "goodput":
        code: int = importlib.import_module("cli.goodput").main(screen, parent, names, options)
        return code
    if not names:
        raise UserError(f"aisc runs {verb}: which run? There are: {', '.join(run.name for run in all_runs(parent)[:10]) or 'none'}")
    if verb in ("show", "retry", "stop") and not options.keys() & set(FLAGS) and (sweep := sweep_meant(names[0], parent)) is not None:
        return of_sweep(screen, verb, sweep)
    if verb in ("show", "stop") and not options.keys() & set(FLAGS) and (chain := chain_meant(names[0], parent)) is not None:
        return of_chain(screen, verb, chain)
    runs = [find_run(name, parent) for name in names]
    if verb == "compare":
        compare(screen, runs, options.get("--svg"))
    elif verb == "show" and "--replies" in options:
        show_replies(screen, runs[0])
    elif verb == "show" and options.keys() & {"--board", "--paper"}:
        for run in runs:
            write_pages(screen, run, options)
    elif verb == "show":
        for run in runs:
            show(screen, run)
    else:
        return act(screen, verb, runs)
    return 0


def act(screen: Console, verb: str, runs: list[RunFolder]) -> int:
    """Follows, stops, resumes or retries; returns the exit code."""
    if verb == "follow":
        code: int = importlib.import_module("cli.follow").follow(screen, runs[0])
        return code
    does: Callable[[Path], str] = getattr(importlib.import_module("launch.control"), verb)
    for run in runs:
        screen.print(Text(does(run.path)), soft_wrap=True)
    if verb != "stop":
        screen.print(f"  follow  aisc runs follow {runs[0].name}", soft_wrap=True)
    return 0


def sweep_meant(text: str, parent: Path) -> Sweep | None:
    """Returns the sweep that `text` means; by the first part of its name only when no run is meant."""
    sweep = find_sweep(text, parent)
    if sweep is None or text in (sweep.name, sweep.short) or Path(text).expanduser() == sweep.path:
        return sweep
    try:
        find_run(text, parent)
    except UserError:
        return sweep
    return None


def chain_meant(text: str, parent: Path) -> ChainFolder | None:
    """Returns the chain that `text` means; by the first part of its name only when no run is meant."""
    chain = find_chain(text, parent)
    if chain is None or text in (chain.name, chain.short) or Path(text).expanduser() == chain.path:
        return chain
    try:
        find_run(text, parent)
    except UserError:
        return chain
    return None


def of_chain(screen: Console, verb: str, chain: ChainFolder) -> int:
    """Shows a chain's stages, or stops it."""
    if verb == "stop":
        for sentence in importlib.import_module("launch.chain_stop").stop_chain(chain):
            screen.print(Text(sentence), soft_wrap=True)
        return 0
    importlib.import_module("cli.chain_table").show_chain(screen, chain)
    return 0


def of_sweep(screen: Console, verb: str, sweep: Sweep) -> int:
    """Shows a sweep's table, stops it, or starts its failed points again."""
    if verb == "stop":
        for sentence in importlib.import_module("launch.sweep_stop").stop_sweep(sweep):
            screen.print(Text(sentence), soft_wrap=True)
        return 0
    if verb == "retry":
        code: int = importlib.import_module("cli.sweep").retry(sweep)
        return code
    importlib.import_module("cli.sweep_table").show_sweep(screen, sweep)
    return 0


def list_runs(screen: Console, parent: Path) -> None:
    """Prints one line per run or sweep, newest first."""
    rows, note = list_rows(parent, time.time())
    sweeps = [(summarize_sweep(sweep.path), sweep_hours(sweep.path, time.time())) for sweep in all_sweeps(parent)]
    chains = all_chains(parent)
    if not rows and not sweeps and not chains:
        screen.print(f"no runs in {parent}   (run.dir=FOLDER or $AISC_RUNS names another folder)")
        return
    cells = [(row.summary.started, cells_of(row), row.is_bad) for row in rows]
    cells += [(sweep.started, cells_of_sweep(sweep, *hours), "failed" in sweep.counts) for sweep, hours in sweeps]
    cells += [(chain.info().created, cells_of_chain(chain), has_failed(chain)) for chain in chains]
    lines = [dict(zip(ORDER, ORDER, strict=True)), *(line for _, line, _ in cells)]
    widths = {name: max(len(line[name]) for line in lines) for name in ORDER}
    shown = shown_columns(widths, screen.width if screen.is_terminal else None)
    styles = ["bold", *("red" if is_bad else "" for _, _, is_bad in cells)]
    for line, style in zip(lines, styles, strict=True):
        text = "  ".join(line[name].rjust(widths[name]) if name in RIGHT else line[name].ljust(widths[name]) for name in shown)
        screen.print(Text(text.rstrip(), style=style), soft_wrap=True)
    screen.print(Text("(in brackets: before training)   aisc runs show RUN"), style="dim")
    if note:
        screen.print(Text(note), style="dim", soft_wrap=True)


def shown_columns(widths: dict[str, int], available: int | None) -> tuple[str, ...]:
    """Returns the columns that fit into `available` columns of a terminal; all where nothing is cut off (None)."""
    kept = list(COLUMNS)
    while available is not None and len(kept) > 4 and sum(widths[name] + 2 for name in kept) - 2 > available:
        kept.pop()
    return tuple(name for name in ORDER if name in kept)


def cells_of(row: Row) -> dict[str, str]:
    """Returns the texts of a run's line."""
    return {
        "RUN": row.summary.name,
        "STATE": row.state,
        "STEP": f"{row.summary.step:,}/{row.summary.total_steps:,}" if row.summary.total_steps else "-",
        "EVAL_LOSS": spell_loss(row.summary),
        "GPU-h": "-" if row.hours is None else spell_hours(row.hours),
        "TRAINED": spell_share(row.trained),
        "LEFT": row.left,
    }


def cells_of_sweep(sweep: SweepSummary, hours: float | None, trained: float | None) -> dict[str, str]:
    """Returns the texts of a sweep's line."""
    return {
        "RUN": f"{sweep.name} ({sweep.num_points})",
        "STATE": sweep.state,
        "STEP": f"{sweep.step:,}/{sweep.total_steps:,}" if sweep.total_steps else "-",
        "EVAL_LOSS": f"{sweep.best:.3f} best" if sweep.best is not None else "-",
        "GPU-h": "-" if hours is None else spell_hours(hours),
        "TRAINED": spell_share(trained),
        "LEFT": "-",
    }


def cells_of_chain(chain: ChainFolder) -> dict[str, str]:
    """Returns the texts of a chain's line: which stage it is at, and the loss of the newest training that is done."""
    states = current_states(chain)
    done = [stage for stage in states if stage.state == "done"]
    at = next((stage for stage in states if stage.state != "done"), None)
    trained = [chain.run_of(stage.name) for stage in done if stage.kind == "train"]
    return {
        "RUN": f"{chain.name} ({len(states)})",
        "STATE": f"{at.name} {at.state}" if at is not None else "done",
        "STEP": f"{len(done)}/{len(states)}",
        "EVAL_LOSS": spell_loss(summarize(trained[-1])) if trained else "-",
        "GPU-h": "-",
        "TRAINED": "-",
        "LEFT": "-",
    }


def has_failed(chain: ChainFolder) -> bool:
    """True when somebody should look."""
    return any(stage.state == "failed" for stage in current_states(chain))


def show(screen: Console, run: RunFolder) -> None:
    """Prints what a run did and what came out."""
    summary = summarize(run)
    result = read_json(run.result_path) or {}
    for line in story_of(run.path):
        screen.print(Text(line), soft_wrap=True)
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


def story_of(run: Path) -> list[str]:
    """Returns what happened to a run, in at most ten lines; the accounting is asked only of a job that the queue forgot."""
    numbers = jobs_of(run)
    queue = ask_queue(numbers)
    is_gone = bool(numbers) and numbers[-1] not in queue.jobs and not queue.note
    return explain(run, now=time.time(), queue=queue, accounts=ask_accounts(numbers) if is_gone else Accounts(note="not asked for"))


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


def write_pages(screen: Console, run: RunFolder, options: Mapping[str, str]) -> None:
    """Writes what is asked for into the run's folder, the page for a board or the kit for a paper, and says where it is."""
    if "--board" in options:
        from train.board import write_board

        for path in write_board(run.path, run.path):
            screen.print(Text(f"board    {path}   private (0600); prints on A4"), soft_wrap=True)
    if "--paper" in options:
        from train.paper import FOLDER, write_paper

        written = write_paper(run.path, run.path)
        screen.print(Text(f"paper    {run.path / FOLDER}   {len(written)} files: {', '.join(path.name for path in written)}"), soft_wrap=True)


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


def spell_clock(seconds: float) -> str:
    """Returns local time to the second."""
    return time.strftime("%H:%M:%S", time.localtime(float(seconds)))


def _tail(text: str, most: int = 300) -> str:
    return text if len(text) <= most else "… " + text[-most:]
