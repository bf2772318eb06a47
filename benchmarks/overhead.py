"""What our loop costs the host beside a bare one.    python -m benchmarks.overhead [--quick]

Step: in one process with one torch thread, update by update in turn: a bare loop, the same bare loop again (A/A), our
loop as train/run.py wires it (loader, schedule, clipping, guards, ledger, metrics.jsonl, a live screen, stop file),
Accelerate's own loop and transformers.Trainer, all on copies of one model, the same batches and torch's fused AdamW.
CPU time of the main thread; 10th percentile of a round's updates, minimum over five rounds, minus the bare loop's. Void
when the A/A row is off by more than 0.2 ms. Rare work (the screen, 4 times a second; the stop file, once) falls outside
the percentile, so the mean over the whole run stands beside it.

Start and memory: programs of their own, one after the other. CPU seconds from nothing to the end of the first update, and
resident memory after 50: `aisc train` with a ready store, and a bare script of transformers with ready batches. Hashing
the weights, in seconds per gigabyte, is no part of it: the model has 0.4 MB.

Predicted: at most +0.6 ms an update (Accelerate +0.5, Trainer +1.0), +60 MB, +0.4 CPU seconds.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from benchmarks import bare_loop
from benchmarks.evidence import ROOT, record
from benchmarks.prepare import TEMPLATE, paragraphs, write_chats
from benchmarks.screen import show, verdict
from data_pipelines.collate import Batch, collate
from data_pipelines.order import Order
from train import loop
from train.run import Session
from train.state import RunState

PREDICTION = {"step_ms": 0.6, "start_cpu_s": 0.4, "memory_mb": 60}
LARGEST_AA_MS = 0.2
VOCAB_SIZE, SEQUENCE_LENGTH, ROWS = 1024, 256, 2
MEMORY_STEPS = 50
COVERS = [
    "train/loop.py",
    "train/step.py",
    "train/metrics.py",
    "train/progress.py",
    "train/engines/ddp.py",
    "train/run.py",
    "benchmarks/bare_loop.py",
    "benchmarks/overhead.py",
]


def write_world(folder: Path) -> list[str]:
    """Writes a tiny model with a tokenizer and chats; returns the arguments of `aisc train` for them."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|im_start|>", "<|im_end|>"]
    bpe = ByteLevelBPETokenizer()
    texts = (text for text, _ in zip(paragraphs(), range(2000), strict=False))
    bpe.train_from_iterator(texts, vocab_size=VOCAB_SIZE, special_tokens=special, show_progress=False)
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe._tokenizer, bos_token=special[0], eos_token=special[1]
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(str(folder / "model"))
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=SEQUENCE_LENGTH,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    write_chats(folder / "chats.jsonl", 600)
    return [
        f"model={folder / 'model'}",
        f"data.train={folder / 'chats.jsonl'}",
        "data.validation=none",
        f"data.sequence_length={SEQUENCE_LENGTH}",
        "data.overlength=split",
        "data.workers=1",
        f"data.store={folder / 'stores'}",
        f"training.global_batch_size={ROWS}",
        "training.duration=100000 steps",
        "checkpoint.every=end",
        f"run.dir={folder / 'runs'}",
    ]


def build_session(arguments: list[str]) -> Session:
    """Returns what `aisc train` builds before its loop, with a screen that nobody sees."""
    from cli.configured import load_checked
    from configs.compose import run_name
    from configs.runfolder import RunFolder
    from train import checkpoint, distributed, run
    from train.finish import weight_files
    from train.inputs import read_inputs
    from train.lineage import Hashing
    from train.watchdog import Watchdog

    given = load_checked(arguments, trains=True)
    config = given.config
    request = run.Request(
        config, given.reasons, RunFolder(Path(str(config.run.dir)) / run_name(config, "overhead")), False, ""
    )
    inputs = read_inputs(config, "", None)
    hashing = Hashing([*weight_files(config), *run.tokenizer_files(inputs.tokenizer_path)])
    context = distributed.start("gloo", "cpu")
    learner = run.build_learner(config, context, inputs)
    facts = run.start_facts(config, inputs, hashing.result())
    start = checkpoint.start_attempt(request.run, facts, context)
    watchdog = Watchdog(start.attempt, 0, 1, 300.0, hint=lambda run: "").start()
    screen = Console(file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True, width=120)  # noqa: SIM115
    return Session(request, inputs, learner, context, start, facts, screen, watchdog)


class Ours:
    """Our loop, one update a call."""

    def __init__(self, session: Session) -> None:
        from train.run import build_parts, make_progress
        from train.signals import StopRequest

        self.state = RunState()
        progress = make_progress(session, self.state)
        self.parts = build_parts(session, self.state, StopRequest(), progress)
        progress.begin(0)

    def __call__(self, position: int) -> None:
        """Makes the update of `position`, which is the next one."""
        assert self.state.position == position
        loop.step(self.parts, self.state)

    def close(self) -> None:
        """Ends screen, thread and files."""
        self.parts.progress.end()
        self.parts.loader.close()
        self.parts.metrics.close()
        if self.parts.ledger_file is not None:
            self.parts.ledger_file.close()


class Windows:
    """The batches of every position, read once: what a bare loop finds in memory."""

    def __init__(self, session: Session, positions: int) -> None:
        config, store = session.request.config, session.inputs.prepared.train
        order = Order(store.num_rows, store.fingerprint, config.training.seed, ROWS)
        self.list = [[collate(store, order.rows(position), session.inputs.pad_id)] for position in range(positions)]

    def __getitem__(self, position: int) -> list[Batch]:
        return self.list[position]


def fused_adamw(scores: nn.Module) -> torch.optim.Optimizer:
    """Returns the optimizer kernel that all share."""
    return torch.optim.AdamW(scores.parameters(), lr=1e-5, fused=True)


def bare(scores: nn.Module, windows: Windows) -> Callable[[int], None]:
    """Returns the bare update."""
    optimizer = fused_adamw(scores)
    return lambda position: bare_loop.update(scores, windows[position], optimizer)


def accelerate_loop(scores: nn.Module, windows: Windows) -> Callable[[int], None]:
    """Returns the update of the loop in Accelerate's documentation, with clipping and a schedule."""
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

    accelerator = Accelerator(cpu=True)
    optimizer = fused_adamw(scores)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    data: Any = DataLoader([window[0] for window in windows.list], collate_fn=lambda items: items[0])  # type: ignore[arg-type]
    model, optimizer, data, schedule = accelerator.prepare(scores, optimizer, data, schedule)

    def updates() -> Iterator[None]:
        for batch in data:
            with accelerator.accumulate(model):
                loss = -model(batch).sum() / batch.num_targets
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            yield

    steps = updates()
    return lambda position: next(steps)


class WithLoss(nn.Module):
    """Scores as Trainer wants a model: a dictionary with a loss."""

    def __init__(self, scores: nn.Module) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": -self.scores(batch).sum() / batch.num_targets}


def run_trainer(scores: nn.Module, windows: Windows, folder: Path, after_update: Callable[[int, float], None]) -> None:
    """Trains with transformers.Trainer; calls `after_update(position, seconds since it last returned)` in every update."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):  # type: ignore[misc]
        began: float

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.thread_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            after_update(state.global_step - 1, time.thread_time() - self.began)
            self.began = time.thread_time()

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=1,
        max_steps=len(windows.list),
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        optim="adamw_torch_fused",
    )
    trainer = Trainer(
        model=WithLoss(scores),
        args=arguments,
        train_dataset=[window[0] for window in windows.list],
        data_collator=lambda items: {"batch": items[0]},
        callbacks=[Clock()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def measure_steps(arguments: list[str], folder: Path, rounds: int, updates: int) -> list[dict[str, Any]]:
    """Returns one row per loop: milliseconds of an update, and what that is above the bare loop."""
    torch.set_num_threads(1)
    session = build_session(arguments)
    windows = Windows(session, rounds * updates + 1)
    scores = session.learner.scores
    ours = Ours(session)
    others = [copy.deepcopy(scores) for _ in range(4)]
    steps: dict[str, Callable[[int], None]] = {
        "bare loop": bare(others[0], windows),
        "bare loop again (A/A)": bare(others[1], windows),
        "aisc": ours,
        "accelerate": accelerate_loop(others[2], windows),
    }
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in [*names, "transformers.Trainer"]}

    def take_turns(position: int, trainer_s: float) -> None:
        seconds["transformers.Trainer"].append(trainer_s)
        turn = position % len(names)
        # Whoever comes first after Trainer finds colder caches: each in its turn.
        for name in [*names[turn:], *names[:turn]]:
            began = time.thread_time()
            steps[name](position)
            seconds[name].append(time.thread_time() - began)

    try:
        run_trainer(others[3], windows, folder, take_turns)
    finally:
        ours.close()
    return [_row(name, np.array(taken[1:]), np.array(seconds["bare loop"][1:]), rounds) for name, taken in seconds.items()]


def _row(name: str, taken: np.ndarray[Any, Any], bare_s: np.ndarray[Any, Any], rounds: int) -> dict[str, Any]:
    def figure(values: np.ndarray[Any, Any]) -> float:
        return float(1000 * np.percentile(values.reshape(rounds, -1), 10, axis=1).min())

    return {
        "name": name,
        "step_ms": figure(taken),
        "above_bare_ms": figure(taken) - figure(bare_s),
        "above_bare_in_the_mean_ms": float(1000 * (taken.mean() - bare_s.mean())),
    }


def write_bare_batches(folder: Path, arguments: list[str]) -> None:
    """Builds the store, and writes the batches that the bare program reads."""
    from cli.configured import load_checked
    from train.inputs import read_inputs

    config = load_checked(arguments, trains=True).config
    inputs = read_inputs(config, "", None)
    store = inputs.prepared.train
    batches = [collate(store, np.arange(ROWS) + ROWS * place, inputs.pad_id) for place in range(store.num_rows // ROWS)]
    ids, labels = (torch.stack(parts).numpy() for parts in zip(*((b.input_ids, b.labels) for b in batches), strict=True))
    np.savez(folder / "batches.npz", ids=ids, labels=labels)


def train_until(arguments: list[str], steps: int) -> None:
    """The child process of our side: the whole of `aisc train`, left after `steps` updates."""
    from cli.main import main as aisc
    from train.metrics import Metrics

    torch.set_num_threads(1)
    plain_step, first_cpu_s = Metrics.step, 0.0

    def step(self: Metrics, number: int, values: Any) -> None:
        nonlocal first_cpu_s
        plain_step(self, number, values)
        first_cpu_s = first_cpu_s or time.process_time()
        if number == steps:
            bare_loop.report(first_cpu_s)
            os._exit(0)

    Metrics.step = step  # type: ignore[method-assign]
    aisc(["train", *arguments])


def child(command: list[str]) -> dict[str, float]:
    """Runs a program and returns its last line."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} exited with {done.returncode}: {done.stderr[-2000:]}")
    line: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return line


def measure_start(folder: Path, arguments: list[str], rounds: int) -> list[dict[str, Any]]:
    """Returns start and memory of both programs: the least of a few runs, in turn."""
    write_bare_batches(folder, arguments)
    runs: dict[str, list[dict[str, float]]] = {"bare script": [], "aisc train": []}
    for number in range(rounds):
        runs["bare script"].append(child(["benchmarks.bare_loop", str(folder), str(MEMORY_STEPS)]))
        own = [*arguments, f"run.name=start-{number}"]
        runs["aisc train"].append(child(["benchmarks.overhead", "--until", str(MEMORY_STEPS), *own]))
    rows = []
    for name, lines in runs.items():
        least = {key: min(line[key] for line in lines) for key in ("cpu_s", "rss_mib")}
        rows.append({"name": name, "start_cpu_s": least["cpu_s"], "resident_mb": least["rss_mib"] * 1.048576})
    return rows


def measure(*, quick: bool) -> dict[str, Any]:
    """Returns prediction, measurements and what our side costs more."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = write_world(folder)
        start = measure_start(folder, arguments, 1 if quick else 5)
        steps = measure_steps(arguments, folder, 2 if quick else 5, 60 if quick else 400)
    more = {row["name"]: row["above_bare_ms"] for row in steps}
    cost = {
        "step_ms": more["aisc"],
        "start_cpu_s": start[1]["start_cpu_s"] - start[0]["start_cpu_s"],
        "memory_mb": start[1]["resident_mb"] - start[0]["resident_mb"],
    }
    is_void = abs(more["bare loop again (A/A)"]) > LARGEST_AA_MS
    figures = f"+{cost['step_ms']:.2f} ms an update, +{cost['start_cpu_s']:.2f} CPU s, +{cost['memory_mb']:.0f} MB"
    holds = not is_void and all(cost[key] <= limit for key, limit in PREDICTION.items())
    return {
        "result": f"void: the A/A row is off by more than {LARGEST_AA_MS} ms" if is_void else verdict(holds, figures),
        "prediction": PREDICTION,
        "measured": steps,
        "start": start,
        "cost": cost,
    }


def main() -> None:
    """Runs the benchmark and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, under a minute, nothing recorded")
    parser.add_argument("--until", type=int, help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    if arguments.until:
        train_until(rest, arguments.until)
        return
    result = measure(quick=arguments.quick)
    show("overhead", result)
    if not arguments.quick:
        record("overhead", covers=COVERS, result=result.pop("result"), counts=result, seed=0)


if __name__ == "__main__":
    main()
