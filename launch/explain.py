"""What happened to a run, in at most ten lines of 80 columns: when, who, what is safe, what to do, what it cost.

A pure function of the run folder and of what Slurm says; read at 3 a.m. by somebody who was woken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.jsonlines import read_last_line, read_lines
from configs.reward import is_classifier
from configs.runfolder import Attempt, RunFolder, Status, read_json, saved_step, state_of
from configs.timekeeping import made_step
from launch.goodput import Goodput, goodput
from launch.live import Accounts, Queue, Queued, jobs_of
from launch.records import Job, JobStart, jobs_folder, read_jobs, read_starts
from launch.words import WIDTH, folded, spell_hours, spell_minute, spell_money, spell_time

MOST_LINES = 10
INDENT = 10
NOTHING = "You need do nothing."
# Of a job that waits: reasons that no waiting mends.
STUCK = {
    "JobHeldUser": "It is held: scontrol release {job}",
    "JobHeldAdmin": "An administrator holds it: ask the centre.",
    "DependencyNeverSatisfied": "What it waits for has failed: aisc runs stop {run}, then launch again.",
    "BadConstraints": "No node can meet it any more: aisc runs stop {run}, then launch again with other cluster settings.",
    "PartitionDown": "The partition is down: wait, or ask the centre.",
    "PartitionInactive": "The partition is closed: wait, or ask the centre.",
    "AccountNotAllowed": "The account may not run there: launch again with another cluster.account.",
    "AssocGrpGRESMinutes": "The account's hours are used up: ask for more, or launch with another cluster.account.",
    "AssocGrpBillingMinutes": "The account's budget is used up: ask for more, or launch with another cluster.account.",
    "launch failed requeued held": "A node could not start it: scontrol release {job}",
}
# Of an attempt that failed: what to do, by kind. {again} is a command.
REMEDIES = {
    "input": "Put right what it names, then: {again}",
    "failed": "It would happen again: change what it names and {anew}. Unchanged: {again}",
    "memory": "Make training.micro_batch_size smaller and {anew}: it goes on at step {saved}.",
    "disk": "Make room, then: {again}",
    "error": "A fault in a program: its traceback is in the log below. Then: {again}",
    "lost": "Go on: {again}",
    "hang": "Go on: {again}",
    "interrupt": "Go on: {again}",
    "superseded": "A later attempt has taken over. You need do nothing.",
}
# What a person is told elsewhere on this screen.
_SAID_ELSEWHERE = re.compile(r"\.? *(Stacks: \S+\. ?|The same command continues.*|Nothing was saved yet: .*|If nobody killed it, ask .*)")


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is looked at, read once."""

    path: Path
    now: float
    status: Status
    jobs: list[Job]
    starts: list[JobStart]
    attempts: list[Attempt]
    saved: int
    queue: Queue
    accounts: Accounts
    account: Goodput

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def short(self) -> str:
        """What commands know the run by."""
        return self.name.rsplit("-", 1)[-1] if re.search(r"-[0-9a-f]{6}$", self.name) else self.name

    @property
    def live(self) -> Queued | None:
        """The run's newest job that works, or else waits."""
        known = [self.queue.jobs[number] for number in reversed(jobs_of(self.path)) if number in self.queue.jobs]
        return next((job for job in known if job.works), next((job for job in reversed(known) if job.waits), None))

    @property
    def ended(self) -> Attempt | None:
        """The newest attempt that is over, as far as is known."""
        over = self.attempts[:-1] if self.is_training else self.attempts
        return over[-1] if over else None

    @property
    def is_training(self) -> bool:
        """True when the newest attempt is at work: its job is, says Slurm, or else its process or its files say so."""
        if not self.attempts or self.attempts[-1].exit_path.exists():
            return False
        live = self.live
        if live is None:
            return self.status.state == "running"
        return live.works and (self.attempts[-1].read_start() or {}).get("job_id") == live.job_id

    @property
    def last_start(self) -> JobStart | None:
        """The newest start of the training."""
        trained = [start for start in self.starts if start.stage == "train"]
        return trained[-1] if trained else None


@dataclass(slots=True)
class Story:
    """The screen in parts: a first sentence, what happened when, what to do."""

    headline: str
    todo: str = NOTHING
    events: list[tuple[float, str]] = field(default_factory=list)


def explain(
    run: Path, *, now: float, queue: Queue | None = None, accounts: Accounts | None = None, account: Goodput | None = None
) -> list[str]:
    """Returns at most ten lines of 80 columns.

    Args:
        run: the run's folder.
        now: seconds since 1970.
        queue: what squeue says of its jobs; None: not asked.
        accounts: what sacct says of them; None: not asked.
        account: its goodput, when that is known already.
    """
    facts = read_facts(run, now, queue or Queue(), accounts or Accounts(note="not asked for"), account)
    story = tell(facts)
    return fit(facts, story)


def read_facts(run: Path, now: float, queue: Queue, accounts: Accounts, account: Goodput | None) -> Facts:
    """Reads what the explanation looks at."""
    return Facts(
        path=run,
        now=now,
        status=state_of(run),
        jobs=read_jobs(run),
        starts=read_starts(run),
        attempts=RunFolder(run).attempts(),
        saved=saved_step(run),
        queue=queue,
        accounts=accounts,
        account=account or goodput(run, now=now, queue=queue, accounts=accounts),
    )


def tell(facts: Facts) -> Story:
    """Returns the story of the state that the run is in."""
    live = facts.live
    if live is not None and live.waits:
        return _waiting(facts, live)
    if live is not None or (facts.status.state == "running" and not _is_cancelled(facts)):
        return _running(facts, live)
    if facts.status.state == "done":
        return _done(facts)
    start = facts.last_start
    if start is not None and start.verdict == "gave up":
        todo = f"Look why, then: {_again(facts)}"
        return Story(f"gave up after {in_vain(facts)} starts without progress.", todo, [*_ending_events(facts), (start.ended or start.began, clean(start.cause))])
    if _is_cancelled(facts) or _stopped_by_user(facts):
        return Story(f"stopped by you, saved step {facts.saved:,}.", f"Go on: {_resume(facts)}", _ending_events(facts))
    return _ended_badly(facts)


def _waiting(facts: Facts, live: Queued) -> Story:
    about = f", about {spell_minute(live.start, facts.now)}" if live.start is not None and live.start > facts.now else ""
    job = next((job for job in facts.jobs if job.job_id == live.job_id), None)
    begun = any(start.job_id == live.job_id for start in facts.starts)
    todo = next((text for reason, text in STUCK.items() if reason in live.reason), NOTHING)
    todo = todo.format(job=live.job_id, run=facts.short)
    if begun:
        return Story(f"requeued, waits in the queue (job {live.job_id}{about}).", todo, _ending_events(facts))
    if live.reason == "Dependency" and job is not None:
        return Story(f"waits for job {job.after} to end (job {live.job_id}, {job.stage}).", todo)
    reason = f", {live.reason}" if live.reason else ""
    return Story(f"waits in the queue (job {live.job_id}{reason}{about}).", todo, _ending_events(facts))


def _running(facts: Facts, live: Queued | None) -> Story:
    newest = facts.attempts[-1] if facts.attempts and facts.ended is not facts.attempts[-1] else None
    step = int((read_last_line(newest.metrics_path) or {"step": 0})["step"]) if newest is not None else 0
    total = (newest.read_start() or {}).get("total_steps") if newest is not None else None
    where = f"job {live.job_id} on {live.nodes}" if live is not None else facts.status.cause
    stage = next((job.stage for job in facts.jobs if live is not None and job.job_id == live.job_id), "train")
    doing = "runs" if stage == "train" else f"{stage} runs"
    at = f", step {step:,} of {total:,}" if total and stage == "train" else ""
    events = _ending_events(facts) if len(facts.attempts) > 1 else []
    return Story(f"{doing} ({where}){at}.", NOTHING, events)


def _done(facts: Facts) -> Story:
    result = read_json(facts.path / "result.json") or {}
    loss = f", eval_loss {result['eval_loss']:.3f}" if result.get("eval_loss") is not None else ""
    failed = [start for start in facts.starts if start.stage != "train" and start.verdict == "failed"]
    if failed:
        again = f"sbatch {failed[-1].stage}.sbatch, in {facts.path}"
        events = [(failed[-1].ended or failed[-1].began, f"{failed[-1].stage}: {clean(failed[-1].cause)}")]
        return Story(f"trained{loss}; {failed[-1].stage} failed (job {failed[-1].job_id}).", f"Put it right, then: {again}", events)
    is_reward = is_classifier(facts.path / "model")
    todo = "It scores answers: AutoModelForSequenceClassification loads model/" if is_reward else f"Talk to it: aisc chat {facts.short}"
    return Story(f"done{loss}, {result.get('steps', facts.saved):,} steps.", todo)


def _ended_badly(facts: Facts) -> Story:
    """Failed, killed, or stopped from outside without anything that goes on."""
    start, attempt = facts.last_start, facts.ended
    end = (read_json(attempt.exit_path) if attempt is not None else None) or {}
    if start is not None and start.verdict == "cancelled":
        todo = f"Put it right, then {'launch it again' if attempt is None else _again(facts)}"
        return Story("cancelled: a job that it waited for failed.", todo, [(start.began, clean(start.cause))])
    if start is not None and not _belongs(attempt, start) and start.verdict in ("failed", "stopped"):
        todo = f"Look into its output, then: {_again(facts)}"
        return Story("failed before it could begin.", todo, _ending_events(facts))
    if end.get("state") in ("failed", "superseded"):
        kind = str(end.get("kind", "failed"))
        words = {"failed": "a check stopped it", "input": "your input", "error": "an error", "lost": "a rank was lost", "hang": "no progress"}
        words |= {"memory": "out of memory", "disk": "the disk is full", "superseded": "a later attempt started"}
        anew = "launch it again" if facts.jobs else "start it again"
        todo = REMEDIES.get(kind, "Go on: {again}").format(again=_again(facts), anew=anew, saved=f"{facts.saved:,}")
        rank = f" (rank {end['rank']})" if "rank" in end else ""
        return Story(f"failed: {words.get(kind, kind)}{rank}.", todo, _ending_events(facts))
    if end.get("state") == "stopped":
        queue = "; in no queue" if facts.jobs else ""
        return Story(f"stopped from outside, saved step {facts.saved:,}{queue}.", f"Go on: {_resume(facts)}", _ending_events(facts))
    if attempt is None and start is None:
        todo = f"Nothing has started it yet: {_resume(facts)}"
        return Story("launched, never started, in no queue." if facts.jobs else "not started.", todo)
    return Story(f"killed without a word{_slurm_says(facts)}.", f"Go on: {_resume(facts)}", _ending_events(facts))


def _ending_events(facts: Facts) -> list[tuple[float, str]]:
    """Returns what is known of the end of the newest attempt that is over, and of its start of a job."""
    events = []
    attempt, start = facts.ended, facts.last_start
    if attempt is not None:
        end = read_json(attempt.exit_path)
        if end is not None:
            done = f"exit {end['code']}; last good checkpoint step {facts.saved:,}" if facts.saved else f"exit {end['code']}; nothing saved"
            events += [(float(end["time"]), clean(str(end["cause"])) or str(end["state"])), (float(end["time"]), done)]
        else:
            segment = next((s for s in facts.account.segments if attempt.number in s.attempts), None)
            began = attempt.read_start() or {}
            at = segment.ended if segment is not None else float(began.get("time", facts.now))
            safe = f"last good checkpoint step {facts.saved:,}" if facts.saved else "nothing saved"
            lost = f"no word from {began.get('host', 'its node')} after step {made_step(facts.path):,}{_slurm_says(facts)}; {safe}"
            events.append((at, lost))
    if start is not None and start.ended is not None and (start.verdict == "excluded" or not _belongs(attempt, start)):
        avoided = f" -> {', '.join(start.excluded)} excluded, requeued" if start.excluded else ""
        events.append((start.ended, f"{clean(start.cause)}{avoided}"))
    return events


def _belongs(attempt: Attempt | None, start: JobStart) -> bool:
    """True when the attempt was made by this start."""
    begun: dict[str, Any] = (attempt.read_start() if attempt is not None else None) or {}
    return begun.get("job_id") == start.job_id and begun.get("job_restart") == start.restart


def _slurm_says(facts: Facts) -> str:
    """Returns what the accounting, or the queue, calls the end of the newest job: ` (Slurm: NODE_FAIL)`."""
    if not facts.jobs:
        return ""
    newest = facts.jobs[-1].job_id
    rows = [row for row in facts.accounts.rows if row.job_id == newest and row.ended is not None]
    queued = facts.queue.jobs.get(newest)
    if queued is not None and not queued.works and not queued.waits:
        return f" (Slurm: {queued.state})"
    return f" (Slurm: {rows[-1].state})" if rows else ""


def cancelled_mark(run: Path, job_id: int) -> Path:
    """Returns the file that says that a person took this waiting job out of the queue."""
    return jobs_folder(run) / f"{job_id}.cancelled"


def _is_cancelled(facts: Facts) -> bool:
    return bool(facts.jobs) and cancelled_mark(facts.path, facts.jobs[-1].job_id).exists()


def _stopped_by_user(facts: Facts) -> bool:
    end = (read_json(facts.attempts[-1].exit_path) if facts.attempts else None) or {}
    return end.get("state") == "stopped" and end.get("kind") == "user"


def _again(facts: Facts) -> str:
    return f"aisc runs retry {facts.short}" if facts.jobs else "the same command"


def _resume(facts: Facts) -> str:
    return f"aisc runs resume {facts.short}" if facts.jobs else "the same command"


def clean(cause: str) -> str:
    """Returns a cause without what this screen says elsewhere, in one line."""
    return _SAID_ELSEWHERE.sub("", " ".join(cause.split())).strip(" .;")


def fit(facts: Facts, story: Story) -> list[str]:
    """Returns the screen: the headline, the events from the oldest, what to do, what was lost, where to look."""
    head = f"{facts.name}   {story.headline}"
    is_calm = story.todo == NOTHING
    top = folded("", f"{head} {NOTHING}" if is_calm else head, indent=0, lines=2)
    bottom = [] if is_calm else folded("do", story.todo, indent=7, lines=2)
    bottom += [line for line in (_lost_line(facts), _logs_line(facts)) if line]
    if facts.queue.note:
        bottom += folded("note", facts.queue.note, indent=7, lines=1)
    room = MOST_LINES - len(top) - len(bottom)
    middle: list[str] = []
    for index, (at, text) in enumerate(story.events):
        after = len(story.events) - index - 1
        stamp = f"  {spell_time(at, facts.now)}"
        indent = max(INDENT, len(stamp)) + 2
        if (lines := min(3, room - len(middle) - after)) > 0:
            middle += folded(stamp, text, indent=indent, lines=lines)
    return [line.rstrip() for line in [*top, *middle, *bottom]][:MOST_LINES]


def _lost_line(facts: Facts) -> str:
    """`lost   1 step, 1.6 GPU-hours (HK$ 12 net)          starts 2, without progress 0`."""
    if not facts.account.segments or facts.status.state == "new":
        return ""
    attempt = facts.ended
    steps = 0 if facts.is_training or facts.status.state == "done" else max(0, made_step(facts.path) - facts.saved)
    seconds = [(segment, segment.seconds().get("lost", 0.0) + segment.seconds().get("redone", 0.0)) for segment in facts.account.segments]
    hours = sum(s * facts.account.width(segment) for segment, s in seconds) / 3600
    cost = sum(facts.account.cost_of(s, segment) for segment, s in seconds if segment.job_id is not None)
    if steps and attempt is not None:
        redo = _seconds_since(attempt, facts.saved) * max(facts.account.width(segment) for segment in facts.account.segments) / 3600
        hours += redo
        cost += facts.account.cost_of(_seconds_since(attempt, facts.saved), facts.account.segments[-1])
    priced = facts.account.net(cost) if facts.account.prices.per_gpu else None
    money = f" ({facts.account.prices.currency} {spell_money(priced)} net)" if priced is not None else ""
    what = "nothing" if not steps and not hours else f"{steps:,} step{'' if steps == 1 else 's'}, {spell_hours(hours)} {facts.account.unit}{money}"
    starts = len([start for start in facts.starts if start.stage == "train"]) or len(facts.attempts)
    if starts < 2 and not steps and not hours:
        return ""
    right = f"starts {starts}, without progress {in_vain(facts)}" if facts.starts else f"starts {starts}"
    return f"{'lost   ' + what:<{WIDTH - len(right) - 1}} {right}"[:WIDTH]


def in_vain(facts: Facts) -> int:
    """Returns how many of the newest job's last starts that are over saved nothing; those that only found a bad node do not count."""
    starts = [start for start in facts.starts if start.stage == "train" and facts.jobs and start.job_id == facts.jobs[-1].job_id]
    if starts and (facts.is_training or (facts.live is not None and facts.live.works)):
        starts = starts[:-1]
    count = 0
    for start in reversed(starts):
        if start.verdict in ("gave up", "excluded"):
            continue
        if start.step != facts.saved or start.verdict == "finished":
            break
        count += 1
    return count


def _seconds_since(attempt: Attempt, step: int) -> float:
    """Returns the time from the end of `step` to the end of the attempt's last step."""
    times = {int(line["step"]): float(line["time"]) for line in read_lines(attempt.metrics_path) if "loss" in line}
    if not times:
        return 0.0
    first = times.get(step, min(times.values()))
    return max(0.0, max(times.values()) - first)


def _logs_line(facts: Facts) -> str:
    """`logs   .../attempts/2/logs/rank-00011.log            stacks  .../attempts/2/hang-0251/`."""
    attempt = facts.ended if facts.status.state != "done" else None
    end = (read_json(attempt.exit_path) if attempt is not None else None) or {}
    found = []
    if attempt is not None and "rank" in end and (log := attempt.log_dir / f"rank-{int(end['rank']):05d}.log").exists():
        found.append(("logs", log))
    start = facts.last_start
    if start is not None and not found and (output := jobs_folder(facts.path) / f"{start.job_id}.out").exists():
        found.append(("logs", output))
    if attempt is not None and (stacks := sorted(attempt.path.glob("hang-*"))):
        found.append(("stacks", stacks[-1]))
    words = [(name, f".../{path.relative_to(facts.path)}{'/' if path.is_dir() else ''}") for name, path in found]
    return "   ".join(f"{name:<7}{path}" if index == 0 else f"{name} {path}" for index, (name, path) in enumerate(words))
