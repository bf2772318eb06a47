"""One training run, from a checked configuration to a finished run folder. The composition root of `train`.

Every rank runs this with the same configuration. Order: data (a store on disk, before any process group), model,
rehearsal, run folder, state of an earlier attempt, loop, export.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from configs import atomic, compose
from configs.durations import parse_seconds
from configs.jsonlines import LineFile
from configs.runfolder import Attempt, RunFolder, read_events
from configs.schema import RunConfig
from data_pipelines import prompts
from data_pipelines.fingerprint import tokenizer_files
from data_pipelines.index import Store
from data_pipelines.ledger import Ledger
from data_pipelines.loader import Loader
from data_pipelines.order import Order
from train import activity, checkpoint, distributed, header
from train.checkpoint import CheckpointReader, Start
from train.checkpoint_reading import checkpoint_of
from train.checkpointer import Checkpointer
from train.deadline import Deadline
from train.distributed import Context
from train.evaluate import Evaluator
from train.export import export_kind
from train.failures import continuing_hint
from train.finish import Finished, finish, weight_files
from train.inputs import Inputs, read_inputs
from train.last_words import LastWords
from train.learner import Learner, build_learner, make_objective
from train.lineage import Hashing, fold
from train.loop import Ending, Parts, train
from train.metrics import Metrics
from train.objectives import Documents, build_objective
from train.outputs import check_outputs
from train.pace import Pace
from train.phases import Phases
from train.progress import Progress
from train.reference import PassStopped, References, read_or_compute
from train.replies import write_replies
from train.report import write_report
from train.rollback import roll_back
from train.signals import StopRequest
from train.spikes import SpikePolicy
from train.state import RunState
from train.step_guards import StepGuards, no_event
from train.stopping import kind_of_stop, stop_poll
from train.trackers import check_trackers, open_trackers
from train.watchdog import SLOW_FACTOR, Watchdog

EXIT_DONE, EXIT_CONTINUE = 0, 75


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of this program.

    Attributes:
        config: resolved; only the micro-batch may still be auto.
        reasons: why each `auto` became what it is.
        run: the run's folder.
        is_dry: everything but training; writes no run folder.
        command: what the user typed after `aisc train`, for advice in errors.
    """

    config: RunConfig
    reasons: dict[str, str]
    run: RunFolder
    is_dry: bool
    command: str


def run(request: Request, console: Console | None) -> tuple[int, Finished | None]:
    """Runs `request` on this rank; returns the exit code, and what came out when it is done.

    Raises:
        UserError: something the user gave cannot be used.
        RunFailed: the run itself went wrong; its cause is in exit.json.
    """
    rank, _, world = distributed.rank_from_environment()
    words = LastWords(rank, world, request.run)
    phases = Phases() if rank == 0 else None
    try:
        return run_rank(request, console, words, phases)
    except BaseException as error:
        raise words.end(error) from None
    finally:
        distributed.shutdown()
        if phases is not None:
            phases.close()


def run_rank(
    request: Request, console: Console | None, words: LastWords, phases: Phases | None
) -> tuple[int, Finished | None]:
    """The body of `run`; what it raises is not yet told to the other ranks."""
    config = request.config
    check_trackers(config.tracker)
    is_first = distributed.rank_from_environment()[0] == 0
    activity.enter("prepare")
    inputs = read_inputs(config, request.command, console if is_first else None)
    activity.enter("start")
    hashing = Hashing([*weight_files(config), *tokenizer_files(inputs.tokenizer_path)])
    hang_timeout_s = parse_seconds(config.guard.hang_timeout)
    context = distributed.start(
        config.engine.backend,
        "cuda" if config.engine.backend == "nccl" else "cpu",
        needs_group=config.engine.name != "ddp",
        timeout_s=2 * SLOW_FACTOR * hang_timeout_s,
    )
    words.join()
    screen = console if context.is_main else None
    learner = build_learner(config, context, inputs)
    lines = header.rows(config, request.reasons, inputs.prepared, learner, inputs.plan)
    if request.is_dry:
        header.show(screen, request.run.name, "dry run: nothing is trained", lines)
        return EXIT_DONE, None
    facts = start_facts(config, inputs, hashing.result())
    # With --new each rank looked for a free name by itself: rank 0's counts.
    request = dataclasses.replace(request, run=RunFolder(Path(distributed.broadcast_json(str(request.run.path)))))
    check_outputs(config, request.run, inputs, learner, context)
    start = checkpoint.start_attempt(request.run, facts, context)
    watchdog = Watchdog(start.attempt, context.rank, context.world_size, hang_timeout_s, hint=continuing_hint).start()
    words.take(start.attempt, watchdog)
    if phases is not None:
        phases.write_to(start.attempt)
    return run_attempt(Session(request, inputs, learner, context, start, facts, screen, watchdog), words, lines)


def start_facts(config: RunConfig, inputs: Inputs, hashes: dict[str, str]) -> dict[str, Any]:
    """Returns what start.json holds and a continuation must find again."""
    weights = {str(path): hashes[str(path)] for path in weight_files(config)}
    tokenizer = {str(path): hashes[str(path)] for path in tokenizer_files(inputs.tokenizer_path)}
    return {
        "identity": compose.identity(config),
        "store": inputs.prepared.fingerprint,
        "weights": fold(weights),
        "tokenizer": fold(tokenizer),
        "weight_files": weights,
        "tokenizer_files": tokenizer,
        "total_steps": inputs.plan.total_steps,
        "seed": config.training.seed,
        "project": config.run.project,
        "store_folder": str(inputs.prepared.folder),
    }


@dataclass(frozen=True, slots=True)
class Session:
    """One attempt: what was asked, what was built, where it writes."""

    request: Request
    inputs: Inputs
    learner: Learner
    context: Context
    start: Start
    facts: dict[str, Any]
    screen: Console | None
    watchdog: Watchdog
    references: References = References()

    @property
    def attempt(self) -> Attempt:
        return self.start.attempt


def run_attempt(session: Session, words: LastWords, lines: list[tuple[str, str]]) -> tuple[int, Finished | None]:
    """Trains from the newest checkpoint, or the beginning, and records how the attempt ended."""
    attempt, is_main = session.attempt, session.context.is_main
    try:
        code, finished = train_and_finish(session, lines)
        if is_main and code == EXIT_DONE:
            attempt.finish("done", code)
    except BaseException as error:
        raise words.end(error) from None
    finally:
        activity.enter("end")
        session.watchdog.stop()
        if is_main and attempt.successor() is None:
            report_on(session)
    return code, finished


def report_on(session: Session) -> None:
    """Writes report.html; a disk that is full has been reported by what filled it, and hides nothing here."""
    try:
        write_report(session.request.run)
    except OSError as error:
        session.attempt.event("report not written", cause=error.strerror)


def train_and_finish(session: Session, lines: list[tuple[str, str]]) -> tuple[int, Finished | None]:
    """The body of an attempt: state, loop, export."""
    request, learner, plan = session.request, session.learner, session.inputs.plan
    attempt, is_main = session.attempt, session.context.is_main
    state = RunState()
    note = "new run"
    stop = StopRequest().install()
    if is_main:
        write_attempt_config(session)
    try:
        session = with_references(session, stop)
    except PassStopped:
        return end_stopped(session, stop, "stopped in the reference's pass, what is computed is kept")
    activity.enter("load")
    if session.start.checkpoint is not None:
        saved = checkpoint.load(
            session.start.checkpoint, learner.engine, session.context, seed=request.config.training.seed
        )
        state = RunState.from_json(saved)
        note = f"continuing at step {state.step} of {plan.total_steps}, ledger {state.ledger[:4]}..{state.ledger[-2:]}"
    if is_main:
        rehearsal = dataclasses.asdict(learner.rehearsal)
        attempt.event("started", step=state.step, world=session.context.world_size, device=learner.device_name, **rehearsal)
    header.show(session.screen, f"{request.run.name}   {request.run.path}", note, lines)
    progress = make_progress(session, state)
    session.watchdog.before_leaving = progress.end
    for sentence in session.start.skipped:
        progress.say(sentence)
    parts = build_parts(session, state, stop, progress)
    try:
        progress.begin(state.tokens)
        ending = train(parts, state)
    finally:
        parts.checkpointer.close()
        progress.end()
        parts.loader.close()
        parts.metrics.close()
        if parts.ledger_file is not None:
            parts.ledger_file.close()
    if ending is Ending.STOPPED:
        done = f"saved step {state.step}" if state.step else "stopped before the first step, nothing to save"
        return end_stopped(session, stop, done)
    return EXIT_DONE, finish_run(session, state)


def end_stopped(session: Session, stop: StopRequest, done: str) -> tuple[int, None]:
    """Says what was `done` before the stop, and records it."""
    if session.screen is not None:
        session.screen.print(f"{done}. The same command continues.", highlight=False, soft_wrap=True)
    if session.context.is_main:
        cause = f"asked to stop ({stop.cause or 'by another rank'})"
        session.attempt.finish("stopped", EXIT_CONTINUE, cause, kind=kind_of_stop(stop))
    return EXIT_CONTINUE, None


def with_references(session: Session, stop: StopRequest) -> Session:
    """Returns the session with the reference model's log-probabilities, while the weights are still those of the start."""
    activity.enter("prepare")
    request, context = session.request, session.context
    wanted = stop_poll(stop, session.attempt, Deadline.from_environment(read_events(request.run.path)), context.is_main)
    weights, screen = session.facts["weights"], session.screen
    found = read_or_compute(request.config, context, session.inputs, session.learner, weights, screen, wanted)
    return dataclasses.replace(session, references=found)


def finish_run(session: Session, state: RunState) -> Finished | None:
    """Exports the best weights straight from their checkpoint; rank 0 writes, the others wait for it."""
    activity.enter("export")
    best = state.best_step or state.step
    merges = export_kind(session.learner.model, session.request.config.export.merge) == "merged"
    if merges and best != state.step:
        session.learner.engine.load_state(CheckpointReader(checkpoint_of(session.request.run, best), ("model.",)))
    finished = None
    if session.context.is_main:
        finished = finish(
            session.attempt,
            session.request.run,
            session.request.config,
            session.inputs.prepared,
            session.learner.model,
            session.inputs.tokenizer,
            CheckpointReader(checkpoint_of(session.request.run, best), ("model.",)),
            state,
            session.facts,
        )
    distributed.barrier()
    return finished


def write_attempt_config(session: Session) -> None:
    """Freezes the configuration as it ran, the micro-batch included."""
    training = dataclasses.replace(
        session.request.config.training, micro_batch_size=session.learner.rehearsal.micro_batch_size
    )
    config = dataclasses.replace(session.request.config, training=training)
    atomic.write_file(session.attempt.config_path, compose.freeze(config))


def make_progress(session: Session, state: RunState) -> Progress:
    """Returns the progress display of this rank."""
    plan, store = session.inputs.plan, session.inputs.prepared.train
    return Progress(
        session.screen,
        total_steps=plan.total_steps,
        first_step=state.step,
        epoch_steps=store.num_rows / session.request.config.training.global_batch_size,
    )


def build_parts(session: Session, state: RunState, stop: StopRequest, progress: Progress) -> Parts:
    """Wires the loop."""
    config, context, learner, inputs = session.request.config, session.context, session.learner, session.inputs
    store, held_out, references = inputs.prepared.train, inputs.prepared.validation, session.references
    dims, micro = learner.engine.dims, learner.rehearsal.micro_batch_size
    order = Order(store.num_rows, store.fingerprint, config.training.seed, config.training.global_batch_size)
    is_main, attempt = context.is_main, session.attempt
    checkpointer = Checkpointer(attempt, session.request.run, context, keep=config.checkpoint.keep)
    return Parts(
        plan=inputs.plan,
        schedule=config.lr_scheduler,
        peak_lr=float(config.optimizer.lr),
        engine=learner.engine,
        module=learner.module,
        objective=make_objective(config, learner.router, Documents.of(store, references.train)),
        router=learner.router,
        optimizer=learner.engine.optimizer,
        store=store,
        order=order,
        loader=Loader(
            store,
            order,
            dp_rank=dims.dp_rank,
            dp_size=dims.dp_size,
            micro_batch_size=micro,
            pad_token_id=inputs.pad_id,
            device=context.device,
        ),
        ledger=Ledger(store.fingerprint, state.ledger),
        ledger_file=LineFile(attempt.ledger_path) if is_main else None,
        evaluator=make_evaluator(session, held_out, micro) if held_out else None,
        before_evaluation=evaluation_marker(session),
        write_replies=replies_writer(session),
        checkpointer=checkpointer,
        metrics=Metrics(
            attempt.metrics_path if is_main else None,
            config.tracker,
            open_trackers(config.tracker, attempt.path, session.request.run.name) if is_main else [],
        ),
        progress=progress,
        stop_wanted=stop_poll(stop, attempt, deadline_of(session, checkpointer), is_main),
        guards=build_guards(session, progress, checkpointer),
    )


def make_evaluator(session: Session, held_out: Store, micro_batch_size: int) -> Evaluator:
    """Returns what measures the objective on the held-out data."""
    objective = build_objective(session.request.config.objective, Documents.of(held_out, session.references.validation))
    dims, device = session.learner.engine.dims, session.context.device
    return Evaluator(held_out, dims, device, micro_batch_size, session.inputs.pad_id, objective)


def deadline_of(session: Session, checkpointer: Checkpointer) -> Deadline:
    """Returns when the job of this attempt ends, and what this run knows of its saves."""
    deadline = Deadline.from_environment(read_events(session.request.run.path))
    checkpointer.on_saved = deadline.saved
    return deadline


def build_guards(session: Session, progress: Progress, checkpointer: Checkpointer) -> StepGuards:
    """Wires what looks at every step."""

    def go_back(state: RunState) -> bool:
        activity.enter("load")  # a checkpoint under way may take longer to be written than a rank may stand still in a step
        checkpointer.wait()
        return roll_back(session.request.run, engine, context, config.training.seed, state)

    config, context, watchdog = session.request.config, session.context, session.watchdog
    guard, engine = config.guard, session.learner.engine
    return StepGuards(
        pace=Pace(context.rank, context.world_size, ratio=guard.straggler_ratio, window=guard.straggler_window),
        spikes=SpikePolicy(guard.spike, guard.spike_sigma, guard.spike_window, guard.spike_limit, guard.spike_rewind),
        engine=engine,
        weights_check=guard.weights_check,
        rank_names=watchdog.rank_names,
        roll_back=go_back,
        event=session.attempt.event if context.is_main else no_event,
        say=progress.say,
    )


def evaluation_marker(session: Session) -> Callable[[int], None]:
    """Returns what notes the start of an evaluation in events.jsonl."""

    def mark(step: int) -> None:
        if session.context.is_main:
            session.attempt.event("evaluating", step=step)

    return mark


def replies_writer(session: Session) -> Callable[[int], None]:
    """Returns what answers the held-out prompts, into a file of rank 0.

    Where no rank holds the whole model all take part; greedy answers are the same on all, so none waits for another.
    """
    evaluation, inputs, engine = session.request.config.evaluation, session.inputs, session.learner.engine
    held_out, is_main = inputs.prepared.validation, session.context.is_main
    if held_out is None or session.request.config.objective.name != "sft" or not (is_main or engine.is_sharded):
        return lambda step: None
    asked = prompts.held_out_prompts(held_out, evaluation.replies)
    if not asked:
        return lambda step: None
    path = session.attempt.path / "replies.jsonl" if is_main else None

    def write(step: int) -> None:
        with engine.direct_calls():
            write_replies(
                path,
                session.learner.model,
                inputs.tokenizer,
                asked,
                step=step,
                device=session.context.device,
                max_new_tokens=evaluation.max_new_tokens,
                stop_ids=inputs.stop_ids,
            )

    return write
