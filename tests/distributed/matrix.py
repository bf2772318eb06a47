"""Twenty steps under every engine, beside a plain fp32 loop: cases that cover every pair of choices, or all of them.

    python -m tests.distributed.matrix pairs            what CI runs, one line of JSON
    python -m tests.distributed.matrix all MODEL        every legal case of one model (soak)
    python -m tests.distributed.matrix golden           writes tests/golden/curves anew, from the plain loop alone

The plain loop knows nothing of our step, scores or engines (train/prove/reference.py). Each case is a learner built and
stepped by the code of a run, on ranks forked from this process; micro-batches are of one row, so that every case
accumulates, and on two or four ranks some get empty rows.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.distributed.parity import import_stack, write_chats, write_model
from tests.kills.lab import make_tokenizer
from train.prove.cases import Case
from train.prove.forked import RanksFailed, run_ranks

STEPS = 20
GOLDEN = Path(__file__).parents[1] / "golden" / "curves"
BOUND = 1e-5
# Largest relative differences of loss and gradient norm from the fp32 loop; 8 bits of mantissa, seen 2e-4 and 4e-3.
BF16_BOUNDS = (2e-3, 2e-2)
SHARED_OUT = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


@dataclass(frozen=True, slots=True)
class Form:
    """One way to hold a model: engine, what else it is told, on how many ranks."""

    engine: str
    worlds: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


FORMS = {
    "single": Form("ddp", (1,)),
    "ddp": Form("ddp", (2, 4)),
    "zero1": Form("zero1", (2, 4)),
    "zero1, optimizer on the host": Form("zero1", (2, 4), {"offload_optimizer": True}),
    "zero2": Form("zero2", (2, 4)),
    "zero2, optimizer on the host": Form("zero2", (2, 4), {"offload_optimizer": True}),
    # Below its threshold ZeRO-3 keeps weights whole; here all of them are shared out.
    "zero3": Form("zero3", (2, 4), {"deepspeed": SHARED_OUT}),
    "zero3, small weights whole": Form("zero3", (2, 4)),
    "zero3, all on the host": Form("zero3", (2, 4), {"offload_optimizer": True, "offload_parameters": True}),
    "fsdp2": Form("fsdp2", (2, 4)),
    "fsdp2, all on the host": Form("fsdp2", (2, 4), {"offload_parameters": True}),
    "fsdp2, two copies": Form("fsdp2", (4,), {"shard_size": 2}),
}
# Left to the soak: each differs from a form that CI runs by one thing that another form has.
SOAK_ONLY = ("zero1, optimizer on the host", "zero3, small weights whole")
MODELS = ("tiny_llama", "tiny_qwen3", "tiny_deepseek_v3")
ADAPTERS = {"full": {"name": "none"}, "lora": {"name": "lora", "rank": 4}}
RECOMPUTE = ("none", "selective", "full")
OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True, slots=True)
class Entry:
    """One case of the matrix."""

    form: str
    world: int
    model: str
    adapter: str
    recompute: str
    optimizer: str
    precision: str = "fp32"
    replays: bool = True

    @property
    def name(self) -> str:
        routing = "" if self.replays else ", free routing"
        return (
            f"{self.form} x{self.world}, {self.model}, {self.adapter}, recompute {self.recompute}, {self.optimizer}, "
            f"{self.precision}{routing}"
        )


def legal_entries() -> Iterator[Entry]:
    """Yields every case in fp32."""
    for form, model, adapter, recompute, optimizer in itertools.product(FORMS, MODELS, ADAPTERS, RECOMPUTE, OPTIMIZERS):
        if form.startswith("zero3") and recompute == "selective":  # refused: see configs/engine_rules.py
            continue
        for world in FORMS[form].worlds:
            yield Entry(form, world, model, adapter, recompute, optimizer)


def pairwise(entries: Iterable[Entry]) -> list[Entry]:
    """Returns a few of `entries` that hold every pair of choices that any of them holds."""
    candidates = list(entries)
    random.Random(7).shuffle(candidates)
    pairs = {entry: set(itertools.combinations(list(dataclasses.asdict(entry).items()), 2)) for entry in candidates}
    missing = set().union(*pairs.values())
    chosen = []
    while missing:
        best = max(candidates, key=lambda entry: (len(pairs[entry] & missing), -entry.world))
        chosen.append(best)
        missing -= pairs[best]
    return chosen


def ci_entries() -> list[Entry]:
    """Returns what CI runs, 40 at most: the pairs, bf16 by kind of engine, experts chosen freely beside replayed ones."""
    half = [
        Entry(form, 2, "tiny_llama", "full", "none", "adamw", "bf16") for form in ("zero2", "zero3", "fsdp2")
    ]
    free = Entry("fsdp2", 2, "tiny_deepseek_v3", "full", "none", "adamw", replays=False)
    return [*pairwise(entry for entry in legal_entries() if entry.form not in SOAK_ONLY), *half, free]


def full_entries(model: str) -> list[Entry]:
    """Returns every legal case of one model; selective recomputation only where two ranks take AdamW."""
    return [
        entry
        for entry in legal_entries()
        if entry.model == model and (entry.recompute != "selective" or (entry.world <= 2 and entry.optimizer == "adamw"))
    ]


class Matrix:
    """Data, models, plain curves; runs entries."""

    def __init__(self, folder: Path, models: Iterable[str]) -> None:
        self._folder = folder
        texts = write_chats(folder / "chats.jsonl")
        make_tokenizer(folder / "tokenizer", texts)
        import_stack()
        self._benches: dict[tuple[str, str], Any] = {}
        self.plain: dict[tuple[str, str], dict[str, Any]] = {}
        for model in models:
            run_ranks(1, write_model, model, folder / model)
            for adapter in ADAPTERS:
                self._prepare(model, adapter)

    def _prepare(self, model: str, adapter: str) -> None:
        from cli.configured import load_checked
        from data_pipelines.tokenize import load_tokenizer
        from train.prove import ranks
        from train.prove.sample import Sample

        own = self._folder / f"{model}-{adapter}"
        own.mkdir()
        tokenizer = str(self._folder / "tokenizer")
        options = [f"adapter.{key}={value}" for key, value in ADAPTERS[adapter].items()]
        config = load_checked(
            [
                f"model={self._folder / model}",
                f"model.tokenizer={tokenizer}",
                f"data={self._folder / 'chats.jsonl'}",
                "optimizer.eps=1e-6",
                *options,
            ],
            trains=True,
        ).config
        sample = Sample(**run_ranks(1, ranks.write_sample, config, tokenizer, own, "")[0])
        bench = ranks.Bench(
            own, config, self._folder / model, tokenizer, load_tokenizer(tokenizer), sample, STEPS, "deepseek" in model
        )
        self._benches[model, adapter] = bench
        self.plain[model, adapter] = run_ranks(1, ranks.run_plainly, bench, "cpu")[0]

    def run(self, entry: Entry) -> dict[str, Any]:
        """Returns how far the case is from the plain loop, whether it moved what it should, and its seconds."""
        from train.prove import ranks

        form = FORMS[entry.form]
        bench = self._benches[entry.model, entry.adapter]
        engine = dataclasses.replace(bench.config.engine, **form.options)
        training = dataclasses.replace(bench.config.training, gradient_checkpointing=entry.recompute)
        bench = dataclasses.replace(bench, config=dataclasses.replace(bench.config, engine=engine, training=training))
        case = Case(
            entry.name,
            "engine",
            entry.optimizer,
            form.engine,
            "varlen",
            world=entry.world,
            micro_rows=1,
            precision=entry.precision,
            replays=entry.replays,
        )
        plain = self.plain[entry.model, entry.adapter]
        settings = ranks.Settings(plain["max_grad_norm"], plain["rates"])
        began = time.monotonic()
        try:
            answers = run_ranks(entry.world, ranks.run_case, bench, case, settings, "gloo")
        except RanksFailed as error:
            return {"error": str(error)[-1500:]}
        expected = plain["runs"][entry.optimizer]
        curve = answers[0]
        return {
            "loss": worst(curve["loss"], expected["loss"]),
            "grad_norm": worst(curve["grad_norm"], expected["grad_norm"]),
            "eval_loss": worst([curve["eval_loss"]], [expected["eval_loss"]]),
            "moved": sorted(set().union(*(answer["moved"] for answer in answers))) == sorted(expected["moved"]),
            "seconds": round(time.monotonic() - began, 1),
        }


def worst(found: list[float], expected: list[float]) -> float:
    """Returns the largest relative difference; infinite when there are not equally many."""
    if len(found) != len(expected):
        return float("inf")
    return max(abs(a / b - 1) for a, b in zip(found, expected, strict=True))


def holds(entry: Entry, result: dict[str, Any]) -> bool:
    """True when the case is within its bounds. Experts chosen freely are reported, not judged."""
    if "error" in result:
        return False
    if entry.precision == "bf16":  # a weight of 1.0 in bf16 does not move by 1e-4, and need not
        return bool(max(result["loss"], result["eval_loss"]) <= BF16_BOUNDS[0] and result["grad_norm"] <= BF16_BOUNDS[1])
    is_close = max(result["loss"], result["eval_loss"], result["grad_norm"]) <= BOUND
    return bool(result["moved"]) and (is_close or not entry.replays)


def curve_text(curve: dict[str, list[float]]) -> str:
    """Returns the lines `step loss grad_norm` of a golden file."""
    pairs = zip(curve["loss"], curve["grad_norm"], strict=True)
    return "".join(f"{step} {loss:.9g} {norm:.9g}\n" for step, (loss, norm) in enumerate(pairs, start=1))


def read_golden(name: str) -> dict[str, list[float]]:
    """Returns the curve of a golden file."""
    rows = [line.split() for line in (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines()]
    return {"loss": [float(row[1]) for row in rows], "grad_norm": [float(row[2]) for row in rows]}


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs what is asked for and returns it as JSON values."""
    models = arguments[1:] or list(MODELS)
    with tempfile.TemporaryDirectory() as name:
        matrix = Matrix(Path(name), models)
        golden = {
            f"{model}-{adapter}-{optimizer}": {key: run[key] for key in ("loss", "grad_norm")}
            for (model, adapter), plain in matrix.plain.items()
            for optimizer, run in plain["runs"].items()
        }
        if arguments[0] == "golden":
            GOLDEN.mkdir(parents=True, exist_ok=True)
            for file, curve in golden.items():
                (GOLDEN / f"{file}.txt").write_text(curve_text(curve), encoding="utf-8")
            return {"written": sorted(golden)}
        entries = ci_entries() if arguments[0] == "pairs" else full_entries(models[0])
        results = {}
        for entry in entries:
            results[entry.name] = {**matrix.run(entry), **dataclasses.asdict(entry)}
            results[entry.name]["holds"] = holds(entry, results[entry.name])
            print(f"{entry.name}: {results[entry.name]}", file=sys.stderr, flush=True)
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = round(sum(usage.ru_utime + usage.ru_stime for usage in spent), 1)
    return {"golden": golden, "cases": results, "cpu_s": cpu_s}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
