"""Mistakes that fine-tuning code has made, put back into the real code; `aisc prove` must exit 1 and name what broke.

    python -m tests.prove.bugs soak | JSON      counts, or one line for each [bug, [option, ...]] of the list

A bug is put into a process that then calls `aisc prove`; the ranks it forks inherit it, and so does the plain loop,
which uses none of the code that is patched here.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from tests.distributed.parity import write_chats
from tests.kills.lab import make_tokenizer
from train.prove.forked import run_ranks
from train.prove.prove import import_stack

ENGINES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


def normalised_by_ranks() -> None:
    """The mean over ranks that the engine takes is forgotten in the loss."""
    import train.step as step

    weighted = step._weighted
    step._weighted = lambda terms, units, dp_size: weighted(terms, units, 1)


def normalised_by_accumulation() -> None:
    """The loss, already divided by the units of the whole window, is divided by the number of micro-batches too."""
    import train.prove.ranks as ranks
    import train.step as step

    train_step, weighted = step.train_step, step._weighted
    length = 1

    def counted(engine: Any, module: Any, objective: Any, window: list[Any], **options: Any) -> Any:
        nonlocal length
        length = len(window)
        return train_step(engine, module, objective, window, **options)

    ranks.train_step = counted  # type: ignore[attr-defined]
    step._weighted = lambda *arguments: weighted(*arguments) / length


def packing_leak() -> None:
    """The boundaries handed to the kernel are those of rows, not of documents."""
    import train.scores as scores

    model_inputs = scores.model_inputs

    def leaking(batch: Any, attention: str) -> dict[str, Any]:
        found = model_inputs(batch, attention)
        rows, length = batch.input_ids.shape
        bounds = torch.arange(rows + 1, dtype=torch.int32) * length
        return {**found, **{key: bounds for key in ("cu_seq_lens_q", "cu_seq_lens_k") if key in found}}

    scores.model_inputs = leaking  # type: ignore[attr-defined]


def cache_on() -> None:
    """The model is called with its cache on, so transformers builds no mask from `position_ids`."""
    import train.scores as scores

    model_inputs = scores.model_inputs
    scores.model_inputs = lambda batch, attention: {**model_inputs(batch, attention), "use_cache": True}  # type: ignore[attr-defined]


def kernel_without_gradient() -> None:
    """The attention kernel's backward pass returns zeros."""
    import train.attention as attention

    kernel = attention.varlen_attention

    def dead(*arguments: Any, **options: Any) -> Any:
        out, weights = kernel(*arguments, **options)
        return out.detach() + 0.0 * out, weights

    attention.varlen_attention = dead


def frozen_layer() -> None:
    """A matrix that should be trained is frozen."""
    import train.adapters as adapters

    attach = adapters.attach

    def freezing(model: nn.Module, *arguments: Any) -> nn.Module:
        attached = attach(model, *arguments)
        for name, parameter in attached.named_parameters():
            if "layers.1.mlp.up_proj" in name:
                parameter.requires_grad_(False)
        return attached

    adapters.attach = freezing


def dropout_in_evaluation() -> None:
    """The held-out loss is measured in training mode."""
    from train.evaluate import Evaluator

    run = Evaluator.run

    def training(self: Evaluator, module: nn.Module) -> Any:
        module.eval = lambda: module  # type: ignore[method-assign]
        return run(self, module)

    Evaluator.run = training  # type: ignore[method-assign]


def applied_ignored() -> None:
    """A norm that is not a number is no reason to leave the weights alone."""
    import train.engines.local as local

    local.math = types.SimpleNamespace(isfinite=lambda value: True)  # type: ignore[assignment]


def label_shifted() -> None:
    """Each label is predicted from its own position instead of the one to its left."""
    import data_pipelines.loader as loader

    collate = loader.collate

    def shifted(*arguments: Any) -> Any:
        batch = collate(*arguments)
        batch.target_index += 1
        return batch

    loader.collate = shifted  # type: ignore[attr-defined]


def clipped_by_rank() -> None:
    """Each rank clips its own gradients to its own norm before they are averaged."""
    from train.engines import StepResult
    from train.engines.ddp import DdpEngine

    step = DdpEngine.step

    def alone(self: DdpEngine, last: bool) -> Any:
        return self._module.no_sync() if self.dims.world > 1 else contextlib.nullcontext()  # type: ignore[operator]

    def clipping(self: DdpEngine) -> StepResult:
        if self.dims.world == 1:
            return step(self)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        for parameter in self._parameters:
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad.div_(self.dims.world))
        step(self)
        return StepResult(float(norm), True)

    DdpEngine.micro_batch, DdpEngine.step = alone, clipping  # type: ignore[method-assign,assignment]


def norms_decayed() -> None:
    """Weight decay acts on norms and biases too."""
    import train.learner as learner

    build = learner.build_optimizer

    def decaying(section: Any, *arguments: Any) -> torch.optim.Optimizer:
        optimizer = build(section, *arguments)
        for group in optimizer.param_groups:
            group["weight_decay"] = section.weight_decay
        return optimizer

    learner.build_optimizer = decaying  # type: ignore[attr-defined]


def stop_token_unlearned() -> None:
    """The mask of an assistant's turn ends before its end-of-turn token."""
    from data_pipelines.problems import RowProblem
    from data_pipelines.tokenize import Encoder, Tokens

    chat = Encoder._chat

    def cut(self: Encoder, rendered: Any, encoding: Any) -> Any:
        made = chat(self, rendered, encoding)
        if isinstance(made, RowProblem):
            return made
        return Tokens(made.ids, made.mask & np.append(made.mask[1:], False))

    Encoder._chat = cut  # type: ignore[method-assign]


def baseline_of_micro_batch() -> None:
    """kto's baseline is the mean of each micro-batch alone."""
    from tests.distributed.preference import per_micro_batch

    per_micro_batch()


# Each bug, the words that name what broke, and what else the configuration needs for it to matter.
BUGS: dict[str, tuple[Callable[[], None], str, tuple[str, ...]]] = {
    function.__name__: (function, words, options)
    for function, words, options in (
        (normalised_by_ranks, r"2 ranks / sgd: gradient norm of step 1 .*\(one over the number of ranks\)", ()),
        (
            normalised_by_accumulation,
            r"micro-batches of one row / sgd: gradient norm of step 1 .*\(one over the number of micro-batches\)",
            (),
        ),
        (packing_leak, r"packed rows / sgd: loss of step 1 .* see each other", ()),
        (cache_on, r"packed rows, sdpa with a mask / sgd: loss of step 1 .* use_cache", ()),
        (kernel_without_gradient, r"varlen attention, one document a row / sgd: gradient norm .* kernel's gradient", ()),
        (frozen_layer, r"weights: .*mlp.up_proj.* should be trained and does not move", ()),
        (dropout_in_evaluation, r"evaluation: .* dropout must be off", ("adapter=lora", "adapter.dropout=0.1")),
        (applied_ignored, r"not finite: a gradient that is not a number counts as a step .* and moves", ()),
        (label_shifted, r"eager attention, one document a row / sgd: loss of step 1 .* labels, their shift", ()),
        (clipped_by_rank, r"2 ranks / sgd: gradient norm of step 1 .* exchange of gradients", ()),
        (norms_decayed, r"eager attention, one document a row / sgd: .* of step 2 .* weight decay", ()),
        (baseline_of_micro_batch, r"micro-batches of one row / sgd: .* of step \d", ("objective=kto", "data=FOLDER/kto.jsonl")),
        (stop_token_unlearned, r"labels: in 24 of 24 documents a learned turn stops before its end-of-turn token", ()),
    )
}


def prove(folder: Path, bug: str, options: list[str]) -> dict[str, Any]:
    """Puts a bug into this process (the empty name: none), proves, and returns exit code and screen."""
    from cli.main import main

    if bug:
        plant, _, needed = BUGS[bug]
        plant()
        options = [*options, *needed]
    options = [word.replace("FOLDER", str(folder)) for word in options]
    inputs = [f"model.tokenizer={folder / 'tokenizer'}", f"data={folder / 'chats.jsonl'}"]
    screen = io.StringIO()
    with contextlib.redirect_stdout(screen):
        code = main(["prove", *inputs, "--reduced", *options])
    return {"code": code, "screen": screen.getvalue()}


def write_preferences(folder: Path) -> None:
    """Writes `pairs.jsonl` and `kto.jsonl`: sums, right and wrong, in answers of different lengths."""
    pairs, marked = [], []
    for a in range(40):
        prompt, right, wrong = f"What is {a} and {3 * a}?", f"{a} and {3 * a} make {4 * a}. " * (1 + a % 3), f"I think {5 * a + 1}."
        pairs.append({"prompt": prompt, "chosen": right, "rejected": wrong})
        marked.append({"prompt": prompt, "completion": wrong if a % 3 else right, "label": a % 3 == 0})
    for name, rows in (("pairs", pairs), ("kto", marked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def prove_all(tries: list[tuple[str, list[str]]]) -> Iterator[dict[str, Any]]:
    """Yields what each (bug, options) gave; the stack is imported once, each try lives in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tokenizer(folder / "tokenizer", write_chats(folder / "chats.jsonl"))
        write_preferences(folder)
        for kind in ("llama", "qwen3", "deepseek_v3"):
            import_stack(kind, 0)
        for bug, options in tries:
            found = run_ranks(1, prove, folder, bug, options, timeout_s=900)[0]
            yield {"bug": bug, "options": options, **found}


def is_named(bug: str, found: dict[str, Any]) -> bool:
    """True when `aisc prove` failed, for the reason that was planted."""
    return found["code"] == 1 and re.search(f"BROKEN   .*{BUGS[bug][1]}", found["screen"]) is not None


def soak() -> dict[str, Any]:
    """Every bug is named; every engine passes with a dense model, one with experts and an adapter."""
    plain = ["model=tiny_llama", "engine=ddp"]
    found = list(prove_all([(bug, plain) for bug in BUGS]))
    missed = [one for one in found if not is_named(one["bug"], one)]
    sound = [[f"model={model}", f"engine={engine}"] for engine in ENGINES for model in ("tiny_llama", "tiny_deepseek_v3")]
    sound += [["model=tiny_qwen3", "adapter=lora", f"engine={engine}", "--ranks=3"] for engine in ENGINES]
    pairs, marked = "data=FOLDER/pairs.jsonl", "data=FOLDER/kto.jsonl"
    sound += [[*plain, f"objective={name}", marked if name == "kto" else pairs] for name in ("dpo", "kto", "orpo", "simpo")]
    sound += [["model=tiny_llama", "engine=fsdp2", "objective=kto", marked], ["model=tiny_llama", "engine=zero3", "objective=dpo", pairs]]
    for loss in ("{loss: robust, label_smoothing: 0.1, length_normalised: true, nll_weight: 0.5}", "{loss: ipo}", "{loss: hinge}"):
        sound.append([*plain, f"objective={{name: dpo, {loss[1:]}", pairs])
    passed = list(prove_all([("", options) for options in sound]))
    failed = [one for one in passed if one["code"]]
    for one in [*missed, *failed]:
        print(one["bug"], one["options"], one["screen"], file=sys.stderr)
    if missed or failed:
        raise SystemExit(1)
    return {"bugs": sorted(BUGS), "named": len(found), "sound configurations that pass": len(passed)}


if __name__ == "__main__":
    if sys.argv[1:] == ["soak"]:
        print(json.dumps(soak()))
    else:  # a JSON list of [bug, [option, ...]]
        for one in prove_all(json.loads(sys.argv[1])):
            print(json.dumps(one), flush=True)
