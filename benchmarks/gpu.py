"""Fine-tuning speed and memory on this machine's GPU.    python -m benchmarks.gpu [--tiny] [--steps N]

Qwen3-0.6B, 1.7B and 8B shapes with random weights, real packed chats (the Hong Kong Cantonese Corpus), sft, LoRA and, where
it fits, every weight. Each case and each loop is a program of its own, one after the other on one card: `aisc` (train/run.py's
own parts and loop), a bare loop and transformers.Trainer over the same scores, batches and optimizer kernel. The first losses
of all three are compared. `--tiny` is the same on a CPU with a tiny shape.

MFU = model FLOPs of a step / (seconds * dense bf16 peak of the card). FLOPs of a step: 6 N per token (2 forward, 4 backward),
4 N with LoRA (no weight gradients of frozen weights), N the weights of all layers; the head's weights count for labelled
tokens only, the only ones that go through it; attention counts causal pairs inside documents: 6 * len^2 * layers *
(heads * head_dim) per document. Recomputed activations are not counted.

Predicted for one H100: aisc within 3 % of the bare loop's tokens/s, MFU 30-45 % at 8B LoRA. Seen: not yet measured on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import bare_loop
from benchmarks.evidence import ROOT, record
from benchmarks.overhead import WithLoss
from benchmarks.screen import show
from data_pipelines.collate import Batch, collate
from data_pipelines.corpora import hkcancor
from data_pipelines.fingerprint import tokenizer_files
from data_pipelines.order import Order
from data_pipelines.tokenize import load_tokenizer
from train import distributed, loop, run
from train.finish import weight_files
from train.inputs import Inputs, read_inputs
from train.lineage import Hashing
from train.scores import base_model
from train.state import RunState

TOKENIZER = Path(".cache/demo/smollm2")
CORPUS = Path(".cache/demo/hkcancor")
MODELS = ("qwen3_0.6b", "qwen3_1.7b", "qwen3_8b")
LOOPS = ("aisc", "bare loop", "transformers.Trainer")
COMPARED_LOSSES = 20
WARMUP_STEPS = 3
# Dense bf16, no sparsity, from NVIDIA's data sheets, FLOP/s.
PEAKS = {"H100": 989e12, "H200": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12}
COVERS = ["benchmarks/gpu.py", "benchmarks/bare_loop.py", "train/loop.py", "train/step.py", "train/scores.py"]


def settings(model: str, adapter: str, folder: Path, *, tiny: bool) -> list[str]:
    """Returns the arguments of `aisc train` for one case; no clipping, so that all loops do the same arithmetic."""
    vocabulary = [f"model.arch.vocab_size={len(load_tokenizer(str(TOKENIZER)))}"] if tiny else []
    return [
        f"model={model}",
        *vocabulary,
        "model.random_weights=true",
        f"model.tokenizer={TOKENIZER}",
        f"adapter={adapter}",
        f"data={CORPUS / 'train.jsonl'}",
        f"data.store={folder / 'stores'}",
        "data.validation=none",
        f"data.sequence_length={512 if tiny else 4096}",
        f"training.global_batch_size={1 if tiny else 4}",
        f"training.micro_batch_size={1 if tiny else 4}",
        f"training.gradient_checkpointing={'full' if not tiny and model.endswith('8b') else 'none'}",
        "training.duration=100000 steps",
        "training.max_grad_norm=0",
        "optimizer.lr=1e-4",
        "lr_scheduler.name=constant",
        "lr_scheduler.warmup=0",
        "evaluation.replies=0",
        "checkpoint.every=end",
        f"run.dir={folder / 'runs'}",
        "run.name=gpu",
    ]


class Case:
    """One model on one device with its batches; `update(position)` of a loop makes one step and returns its loss."""

    def __init__(self, arguments: list[str]) -> None:
        from cli.configured import load_checked
        from configs.compose import run_name
        from configs.runfolder import RunFolder

        given = load_checked(arguments, trains=True)
        self.config = given.config
        self.inputs: Inputs = read_inputs(self.config, "", None)
        backend = self.config.engine.backend
        self.context = distributed.start(backend, "cuda" if backend == "nccl" else "cpu")
        self.learner = run.build_learner(self.config, self.context, self.inputs)
        folder = RunFolder(Path(str(self.config.run.dir)) / run_name(self.config, "gpu"))
        self.request = run.Request(self.config, given.reasons, folder, False, "")
        self.store = self.inputs.prepared.train
        self.order = Order(
            self.store.num_rows, self.store.fingerprint, self.config.training.seed, self.config.training.global_batch_size
        )

    def window(self, position: int) -> list[Batch]:
        """Returns the micro-batches of a position, on the device."""
        rows = self.order.rows(position)
        micro = int(self.config.training.micro_batch_size)
        parts = [rows[begin : begin + micro] for begin in range(0, len(rows), micro)]
        return [collate(self.store, part, self.inputs.pad_id).to(self.context.device) for part in parts]

    def flops(self, position: int) -> float:
        """Returns the model FLOPs of the step at `position`, as the module's docstring defines them."""
        model: Any = base_model(self.learner.model)
        values = model.config
        per_weight = 4 if self.config.adapter.name == "lora" else 6
        head = values.vocab_size * values.hidden_size
        embeddings = head if values.tie_word_embeddings else 2 * head
        weights = model.num_parameters() - embeddings
        width = values.num_attention_heads * getattr(values, "head_dim", values.hidden_size // values.num_attention_heads)
        tokens = labelled = squares = 0
        for batch in self.window(position):
            labelled += batch.num_targets
            sizes = torch.diff(batch.cu_seqlens.long()).tolist()
            for size, document in zip(sizes, batch.document_ids.tolist(), strict=True):
                tokens += size if document >= 0 else 0
                squares += size * size if document >= 0 else 0
        return per_weight * (weights * tokens + head * labelled) + 6.0 * squares * values.num_hidden_layers * width

    def tokens(self, position: int) -> int:
        """Returns the tokens of a step, padding left out."""
        return int(self.store.row_tokens[self.order.rows(position)].sum())


@contextlib.contextmanager
def aisc_loop(case: Case) -> Iterator[Callable[[int], float]]:
    """Yields our loop's update, with everything it does on the way."""
    from configs.jsonlines import read_lines
    from train import checkpoint
    from train.signals import StopRequest

    hashes = Hashing([*weight_files(case.config), *tokenizer_files(case.inputs.tokenizer_path)]).result()
    facts = run.start_facts(case.config, case.inputs, hashes)
    start = checkpoint.start_attempt(case.request.run, facts, case.context)
    session = run.Session(case.request, case.inputs, case.learner, case.context, start, facts, None)
    state = RunState()
    parts = run.build_parts(session, state, StopRequest(), run.make_progress(session, state))
    parts.progress.begin(0)

    def update(position: int) -> float:
        assert state.position == position
        loop.step(parts, state)
        return float(read_lines(start.attempt.metrics_path)[-1]["loss"]) if position < COMPARED_LOSSES else 0.0

    try:
        yield update
    finally:
        parts.loader.close()
        parts.metrics.close()


@contextlib.contextmanager
def plain_loop(case: Case) -> Iterator[Callable[[int], float]]:
    """Yields the bare update over the same scores and optimizer."""
    scores, optimizer = case.learner.scores, case.learner.optimizer
    yield lambda position: float(bare_loop.update(scores, case.window(position), optimizer))


def run_trainer(case: Case, steps: int, folder: Path, after: Callable[[int, float], None]) -> None:
    """Trains with transformers.Trainer over the same scores and optimizer; `after(position, loss)` ends each update."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    losses: list[float] = []

    class Watched(WithLoss):
        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            out = super().forward(batch)
            losses.append(float(out["loss"].detach()))
            return out

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            after(state.global_step - 1, losses[-1])

    micro, total = int(case.config.training.micro_batch_size), case.config.training.global_batch_size
    assert micro == total, "one micro-batch a step"
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=1,
        max_steps=steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        use_cpu=case.context.device.type == "cpu",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    constant = torch.optim.lr_scheduler.LambdaLR(case.learner.optimizer, lambda step: 1.0)
    trainer = Trainer(
        model=Watched(case.learner.scores),
        args=arguments,
        train_dataset=list(range(steps)),  # type: ignore[arg-type]
        data_collator=lambda positions: {"batch": case.window(positions[0])[0]},
        callbacks=[Clock()],
        optimizers=(case.learner.optimizer, constant),
    )
    # Positions in order: Trainer would shuffle them.
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(range(steps))  # type: ignore[method-assign]
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_loop(name: str, arguments: list[str], steps: int, folder: Path) -> dict[str, Any]:
    """Returns losses, seconds and memory of one loop in this process."""
    case = Case(arguments)
    device = case.context.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    losses: list[float] = []
    marks: list[float] = []

    def after(position: int, loss: float) -> None:
        losses.append(loss)
        if position + 1 >= WARMUP_STEPS:
            synchronize(device)
            marks.append(time.perf_counter())

    idle: float | None = None
    if name == "transformers.Trainer":
        run_trainer(case, steps, folder, after)
    else:
        with (aisc_loop if name == "aisc" else plain_loop)(case) as update:
            for position in range(steps):
                after(position, update(position))
            if device.type == "cuda":
                idle = idle_share(update, range(steps, steps + 5), device)
    timed = range(WARMUP_STEPS, steps)
    seconds = marks[-1] - marks[0]
    peak = next((value for card, value in PEAKS.items() if device.type == "cuda" and card in torch.cuda.get_device_name(device)), None)
    return {
        "losses": losses[:COMPARED_LOSSES],
        "tokens_per_s": sum(map(case.tokens, timed)) / seconds,
        "mfu": sum(map(case.flops, timed)) / seconds / peak if peak else None,
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        "idle_share": idle,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
    }


def idle_share(update: Callable[[int], float], positions: range, device: torch.device) -> float:
    """Returns the share of wall time in which no kernel runs on the device, over a few updates."""
    from torch.profiler import ProfilerActivity, profile

    synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        began = time.perf_counter()
        for position in positions:
            update(position)
        synchronize(device)
        wall_us = 1e6 * (time.perf_counter() - began)
    spans = sorted((event.time_range.start, event.time_range.end) for event in profiler.events())
    busy = last = 0.0
    for begin, end in spans:
        busy += max(0.0, end - max(begin, last))
        last = max(last, end)
    return max(0.0, 1 - busy / wall_us)


def child(name: str, arguments: list[str], steps: int, folder: Path) -> dict[str, Any]:
    """Runs one loop of one case in a process of its own; `failed` tells why it could not."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--loop", name, "--steps", str(steps), "--folder", str(folder)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"failed": "does not fit" if "OutOfMemory" in done.stderr else last[0][:200]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(*, tiny: bool, steps: int) -> dict[str, Any]:
    """Returns one row per case and loop."""
    if not (CORPUS / "about.json").is_file():
        hkcancor.build(CORPUS, TOKENIZER, Path(".cache/packages"))
    rows = []
    device = "CPU"
    for model in ("tiny_qwen3",) if tiny else MODELS:
        for adapter in ("lora", "none"):
            with tempfile.TemporaryDirectory() as name:
                found = {
                    kind: child(kind, settings(model, adapter, Path(name) / kind, tiny=tiny), steps, Path(name)) for kind in LOOPS
                }
            ours = found["aisc"].get("losses", [])
            for kind, result in found.items():
                device = result.get("device", device)
                difference = max((abs(a / b - 1) for a, b in zip(ours, result.get("losses", []), strict=False)), default=None)
                rows.append({"name": f"{model} {adapter} {kind}", **_row(result), "losses_differ": difference})
    return {"device": device, "measured": rows, "steps": steps}


def _row(result: dict[str, Any]) -> dict[str, Any]:
    keys = ("tokens_per_s", "mfu", "peak_gib", "idle_share")
    return {**{key: result.get(key) for key in keys}, "note": result.get("failed", "")}


def main() -> None:
    """Runs the benchmark; records it when there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small shape on a CPU, nothing recorded")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    if arguments.loop:
        print(json.dumps(measure_loop(arguments.loop, rest, arguments.steps, arguments.folder)))
        return
    if not arguments.tiny and not torch.cuda.is_available():
        raise SystemExit("no GPU here; --tiny runs the same on a CPU")
    result = measure(tiny=arguments.tiny, steps=6 if arguments.tiny else arguments.steps)
    show(f"one {result['device']}", result)
    if not arguments.tiny:
        record("gpu", covers=COVERS, result="measured", counts=result, seed=1)


if __name__ == "__main__":
    main()
