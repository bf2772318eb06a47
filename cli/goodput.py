"""`aisc runs goodput`: what the hours of a run, a project or a month went into, and what they cost."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from configs.atomic import write_file
from configs.errors import UserError
from configs.runfolder import RunFolder
from configs.timekeeping import PHASES, UNKNOWN
from launch.goodput import Goodput, Total, agrees, differences, goodput, totals, write_goodput
from launch.live import ask_accounts, ask_queue, jobs_of
from launch.runs import all_runs, chain_runs, find_run, sweep_runs
from launch.words import spell_hours, spell_length, spell_money, spell_share, spell_time

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_STARTS = 12


def main(screen: Console, parent: Path, names: Sequence[str], options: Mapping[str, str]) -> int:
    """Prints the account of the runs named, or of all together by project and month; returns the exit code."""
    month, project = options.get("--month"), options.get("--project")
    if names and (month or project):
        raise UserError("aisc runs goodput: a RUN, or --project and --month; not both")
    if not names:
        return show_totals(screen, parent, project, month)
    accounts = [account_of(find_run(name, parent)) for name in names]
    for account in accounts:
        show_account(screen, account)
    if svg := options.get("--svg"):
        draw = importlib.import_module("train.report.goodput").draw
        write_file(Path(svg), draw([account.to_json() for account in accounts]))
        screen.print(f"figure   {svg}", soft_wrap=True)
    return 0


def account_of(run: RunFolder) -> Goodput:
    """Returns a run's account, compared with Slurm's where there is one; writes its goodput.json and renews its report."""
    numbers = jobs_of(run.path)
    account = goodput(run.path, now=time.time(), queue=ask_queue(numbers), accounts=ask_accounts(numbers))
    write_goodput(run.path, account)
    if (run.path / "report.html").exists():
        importlib.import_module("train.report").write_report(run)
    return account


def show_account(screen: Console, account: Goodput) -> None:
    """Prints hours, shares and cost by phase; each start; what Slurm's accounting says to that."""
    starts = "1 start" if len(account.segments) == 1 else f"{len(account.segments)} starts"
    waited = f", waited {spell_length(account.queue_s)} in the queue" if account.queue_s else ""
    say(screen, f"{account.run}   {spell_hours(account.total)} {account.unit} in {starts}{waited}", style="bold")
    cost, costs = account.cost, account.cost_by_phase()
    money = f"{account.prices.currency + ' list':>10}{'net':>10}" if cost is not None else ""
    say(screen, f"  {'':<10}{account.unit:>12}{'share':>8}{money}")
    for phase, hours in account.hours.items():
        if phase in PHASES or hours:
            say(screen, phase_line(account, phase, hours, costs.get(phase, 0.0)))
    say(screen, phase_line(account, "total", account.total, cost or 0.0))
    say(screen, f"\n  {'start':<14}{'began':<13}{'length':>9}{'trained':>9}  {'ended':<12}{'by Slurm':>10}{'off':>8}")
    if len(account.segments) > SHOWN_STARTS:
        say(screen, f"  ... {len(account.segments) - SHOWN_STARTS} earlier ones: goodput.json")
    for line in start_lines(account)[-SHOWN_STARTS:]:
        say(screen, line)
    for line in notes(account):
        say(screen, line, style="dim")


def phase_line(account: Goodput, phase: str, hours: float, cost: float) -> str:
    """Returns `  train  25.8  94 %  645  194`."""
    share = spell_share(hours / account.total if account.total else None)
    money = f"{spell_money(cost):>10}{spell_money(account.net(cost)):>10}" if account.cost is not None else ""
    digits = 3 if account.total < 10 else 2 if account.total < 100 else 1
    return f"  {phase:<10}{hours:>12,.{digits}f}{share:>8}{money}"


def start_lines(account: Goodput) -> list[str]:
    """Returns one line per start."""
    lines = []
    for part in account.segments:
        name = f"{part.job_id}.{part.restart}" if part.job_id is not None else f"attempt {part.attempts[0]}"
        seconds = part.seconds()
        share = (seconds.get("train", 0.0) + seconds.get("compile", 0.0)) / part.elapsed_s if part.elapsed_s else None
        ended = part.verdict or ("runs" if part.ended_by == "running" else "killed")
        slurm = off = "-"
        if part.slurm_s is not None:
            slurm, off = spell_seconds(part.slurm_s), f"{part.elapsed_s - part.slurm_s:+.1f} s"
        stage = "" if part.stage == "train" else f" {part.stage}"
        began = spell_time(part.began, account.as_of)
        lines.append(
            f"  {name + stage:<14}{began:<13}{spell_seconds(part.elapsed_s):>9}{spell_share(share):>9}  {ended:<12}{slurm:>10}{off:>8}"
        )
    return lines


def notes(account: Goodput) -> list[str]:
    """Returns what the figures rest on."""
    found = []
    compared = differences(account)
    if compared:
        bad = [part for part, _ in compared if not agrees(part)]
        off = sum(difference for _, difference in compared)
        verdict = "all within 1 % or 2 s" if not bad else f"{len(bad)} off by more than 1 % and 2 s: {', '.join(f'{p.job_id}.{p.restart}' for p in bad)}"
        found.append(f"sacct: {len(compared)} of {len(account.segments)} starts compared, {off:+.1f} s in all; {verdict}")
    else:
        found.append(f"not compared with Slurm's accounting: {account.note}")
    if guessed := [part for part in account.segments if part.ended_by == "last sign"]:
        found.append(f"{len(guessed)} killed without a word: counted to their last sign of life, the job may have lasted longer")
    if account.hours.get(UNKNOWN):
        found.append("unknown: from before phases were recorded")
    prices = account.prices
    found.append(prices.note or f"prices: {prices.source or 'site file'}, subsidy {spell_share(prices.subsidy)}")
    return found


def show_totals(screen: Console, parent: Path, project: str | None, month: str | None) -> int:
    """Prints one line per project and month."""
    now = time.time()
    runs = [*all_runs(parent), *sweep_runs(parent), *chain_runs(parent)]
    found = totals([goodput(run.path, now=now) for run in runs], project=project, month=month)
    if not found:
        of = "".join([f" of project {project}" if project else "", f" in {month}" if month else ""])
        say(screen, f"no hours{of} in {parent}")
        return 0
    say(screen, f"{'PROJECT':<16}{'MONTH':<9}{'RUNS':>5}{'GPU-h':>9}{'TRAINED':>9}{'LOST':>7}{'REDONE':>8}{'LIST':>9}{'NET':>8}", style="bold")
    for total in found:
        say(screen, total_line(total))
    if unpriced := sum(total.unpriced for total in found):
        say(screen, f"{unpriced} without a price (no site file, or no job of Slurm): not in LIST and NET, which are {found[0].currency}", style="dim")
    return 0


def total_line(total: Total) -> str:
    """Returns the line of a project and month."""
    trained, lost, redone = (
        spell_share(sum(total.hours[name] for name in names) / total.total if total.total else None)
        for names in (("train", "compile"), ("lost",), ("redone",))
    )
    money = f"{spell_money(total.cost):>9}{spell_money(total.net):>8}"
    return f"{total.project:<16}{total.month:<9}{total.runs:>5}{spell_hours(total.total):>9}{trained:>9}{lost:>7}{redone:>8}{money}"


def spell_seconds(seconds: float) -> str:
    """Returns `198.4 s`, or `3 h 20` from an hour on."""
    return f"{seconds:.1f} s" if seconds < 3600 else spell_length(seconds)


def say(screen: Console, text: str, *, style: str = "") -> None:
    """Prints a line as it is."""
    screen.print(Text(text, style=style), soft_wrap=True)
