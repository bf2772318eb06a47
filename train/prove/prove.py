"""`aisc prove`: a few optimizer steps of the user's configuration in every arrangement, beside a plain loop.

The process that calls `prove` imports everything and computes nothing; each case runs on ranks forked from it.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, RunFailed
from configs.facts import Facts
from configs.schema import RunConfig
from train.prove.forked import RanksFailed, run_ranks
from train.prove.shape import is_mixture, reduced_shape

STEPS = 3
WORLD = 2
REDUCED_TIMEOUT_S = 300.0
TIMEOUT_S = 3600.0
SHARDED = ("zero1", "zero2", "zero3", "fsdp2")
# Late imports of a run: after the fork each rank would do them again.
_LATE = ("accelerate", "deepspeed", "peft", "data_pipelines.build", "train.learner")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be proven.

    Attributes:
        config: the user's, resolved and checked.
        facts: the model's config.json and this machine.
        is_reduced: the model's shape made small, random weights.
        steps: optimizer steps of each case; worlds: numbers of ranks above one.
        command: what the user typed, for advice in errors.
        engine_reason: why `engine.name=auto` became what it is on this machine; empty when the user named it.
    """

    config: RunConfig
    facts: Facts
    is_reduced: bool
    steps: int
    worlds: list[int]
    command: str
    engine_reason: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """The rows of the table, what was compared, and every curve."""

    rows: list[Any]
    about: dict[str, Any]
    curves: dict[str, Any]
    seconds: float

    @property
    def holds(self) -> bool:
        return all(row.is_ok is not False for row in self.rows)


def prove(asked: Asked, on_case: Callable[[str], None] = lambda name: None) -> Proof:
    """Runs every case and judges it; `on_case` hears the name of each before it starts.

    Raises:
        UserError: model or data cannot be used.
        RunFailed: the plain loop itself could not run.
    """
    start = time.monotonic()
    import_stack(model_values(asked)["model_type"], asked.facts.num_gpus)
    with tempfile.TemporaryDirectory(prefix="aisc-prove-") as name:
        return _prove(asked, Path(name), on_case, start)


def import_stack(kind: str, num_gpus: int) -> None:
    """Imports what ranks with a model of this kind use. Nothing is computed, no GPU is touched: neither survives a fork."""
    # Asking CUDA how many GPUs there are would initialise it here; NVML does not.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait must not spin: ranks share the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not num_gpus:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import transformers

    for module in (*_LATE, f"transformers.models.{kind}.modeling_{kind}"):
        if importlib.util.find_spec(module.split(".")[0]):
            importlib.import_module(module)
    transformers.logging.set_verbosity_error()


def model_values(asked: Asked) -> dict[str, Any]:
    """Returns the values of the model's config.json.

    Raises:
        ConfigError: it names no kind of model.
    """
    values = asked.facts.model
    if "model_type" not in values:
        raise ConfigError("model.path: its config.json names no model_type; expected a Hugging Face model folder")
    return values


def _prove(asked: Asked, folder: Path, on_case: Callable[[str], None], start: float) -> Proof:
    from train.prove import ranks, verdict
    from train.prove.cases import make_cases

    on_case("the data")
    bench = make_bench(asked, folder)
    backend = "nccl" if asked.facts.num_gpus else "gloo"
    on_case("the plain loop")
    plain = _alone(asked, ranks.run_plainly, bench, "cuda" if backend == "nccl" else "cpu")
    settings = ranks.Settings(plain["max_grad_norm"], plain["rates"])
    kernel, exact = kernels(asked.config.model.attention, on_gpu=backend == "nccl")
    cases = make_cases(
        asked.config, kernel=kernel, exact_kernel=exact, worlds=asked.worlds, is_mixture=bench.is_mixture
    )
    outcomes: dict[str, verdict.Outcome] = {}
    rows = []
    for case in cases:
        on_case(case.key)
        outcomes_before = dict(outcomes)
        if (where := place_of(case.world, asked)) is None:
            rows.append(verdict.Row(case.name, case.optimizer, note=f"not run: {asked.facts.num_gpus} GPUs", is_ok=None))
            continue
        outcomes[case.key] = outcome = _run(asked, bench, case, settings, where)
        rows.append(verdict.judge_case(outcome, plain["runs"], outcomes_before))
    rows += [
        verdict.judge_evaluation(outcomes.values(), plain["runs"]),
        verdict.judge_movement(outcomes.values(), plain["runs"]),
        verdict.judge_labels(bench.sample, asked.config.objective.name),
    ]
    curves = {"plain": plain, **{key: outcome.ranks for key, outcome in outcomes.items()}}
    return Proof(rows, describe(asked, bench, plain), curves, time.monotonic() - start)


def make_bench(asked: Asked, folder: Path) -> Any:
    """Writes sample and model into `folder`; returns the bench."""
    from data_pipelines.tokenize import load_tokenizer
    from train.models import tokenizer_folder
    from train.prove import ranks
    from train.prove.sample import Sample

    config, values = asked.config, model_values(asked)
    tokenizer_path = str(tokenizer_folder(config.model))
    figures = _alone(asked, ranks.write_sample, config, tokenizer_path, folder, asked.command)
    model = Path(config.model.path).expanduser() if config.model.path else folder / "model"
    if asked.is_reduced or not config.model.path:
        model = folder / "model"
        shape = reduced_shape(values) if asked.is_reduced else values
        _alone(asked, ranks.write_model, shape, config.training.seed, model)
    tokenizer = load_tokenizer(tokenizer_path)
    return ranks.Bench(
        folder, config, model, tokenizer_path, tokenizer, Sample(**figures), asked.steps, is_mixture(values)
    )


def kernels(attention: str, *, on_gpu: bool) -> tuple[str, str]:
    """Returns (attention as configured, attention for the exact cases in fp32, which FlashAttention does not compute)."""
    if attention in ("sdpa", "eager"):
        return attention, attention
    if not on_gpu:
        return "varlen", "varlen"
    return attention, "sdpa"


def place_of(world: int, asked: Asked) -> str | None:
    """Returns the backend for `world` ranks: nccl where there are as many GPUs, else gloo; None when that is too slow."""
    if asked.facts.num_gpus >= world:
        return "nccl"
    return "gloo" if asked.is_reduced or not asked.facts.num_gpus else None


def _alone(asked: Asked, function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what one forked process computes.

    Raises:
        ConfigError: the user's input cannot be used.
        RunFailed: it did not survive.
    """
    from train.prove.ranks import guarded

    try:
        answer = run_ranks(1, guarded, function, *arguments, timeout_s=_timeout(asked))[0]
    except RanksFailed as error:
        advice = "" if asked.is_reduced else "; --reduced proves the same arithmetic on a small shape of this model"
        raise RunFailed(f"aisc prove: {last_line(str(error))}{advice}") from error
    if "refused" in answer:
        raise ConfigError(answer["refused"].splitlines())
    return answer["value"]


def _run(asked: Asked, bench: Any, case: Any, settings: Any, backend: str) -> Any:
    from train.prove import ranks
    from train.prove.verdict import Outcome

    try:
        answers = run_ranks(
            case.world, ranks.guarded, ranks.run_case, bench, case, settings, backend, timeout_s=_timeout(asked)
        )
    except RanksFailed as error:
        return Outcome(case, [], last_line(str(error)))
    if refused := next((answer["refused"] for answer in answers if "refused" in answer), None):
        raise ConfigError(refused.splitlines())
    return Outcome(case, [answer["value"] for answer in answers])


def _timeout(asked: Asked) -> float:
    return REDUCED_TIMEOUT_S if asked.is_reduced else TIMEOUT_S


def last_line(text: str) -> str:
    """Returns the last line of the first rank's traceback: the error itself, not the line of code that raised it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception", "Failed")) and " " not in line.split(":")[0]]
    return (errors or lines or ["no output"])[0]


def describe(asked: Asked, bench: Any, plain: dict[str, Any]) -> dict[str, Any]:
    """Returns what was compared, as JSON."""
    config, sample = asked.config, bench.sample
    shape = json.loads((bench.model / "config.json").read_text(encoding="utf-8"))
    return {
        "model": config.model.path or config.model.arch.get("model_type"),
        "kind": shape["model_type"],
        "layers": shape.get("num_hidden_layers", shape.get("n_layer")),
        "hidden": shape.get("hidden_size", shape.get("n_embd")),
        "vocabulary": shape["vocab_size"],
        "is_reduced": asked.is_reduced,
        "is_mixture": bench.is_mixture,
        "adapter": config.adapter.name,
        "objective": config.objective.name,
        "engine": config.engine.name,
        "engine_reason": asked.engine_reason,
        "device": "cuda" if asked.facts.num_gpus else "cpu",
        "steps": asked.steps,
        "documents": sample.documents,
        "packed_rows": sample.packed_rows,
        "row_tokens": sample.row_tokens,
        "tokens": sample.tokens,
        "supervised": sample.supervised,
        "max_grad_norm": plain["max_grad_norm"],
        "rates": plain["rates"],
    }
