"""The parity gate: a written model is given away only when it does what the trained one does.

Looked at: the trained model (the base with its adapter as training held it), the merged one in memory, and the folder as
transformers loads it. What must agree, in this order, so that the error names the cause and not a symptom: the
architecture, the tokenizer with its chat template and special tokens, tied weights, the share of the adapter's effect
that a merge has, the logits of a few prompts, and the greedy text after them. Of prompts and text only lengths and hashes
are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import RunFailed
from train.activity import sign
from train.replies import answer
from train.scores import base_model

# Largest difference of two logits, as a share of the largest logit. float32: sums in another order, measured below 1e-5
# on the recipes. bfloat16 and float16: about eight and ten units of rounding (2^-8, 2^-11) of one weight, which add up
# like random numbers over the layers.
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
# How far from 1 the share of the adapter's effect in the merged model may be. Rounding is hardly correlated with the
# effect, so it moves this far less than single logits; a wrong alpha / rank gives 2, 0.25 ..., no merge at all gives 0.
EFFECT_BOUNDS = {torch.float32: 0.02, torch.bfloat16: 0.25, torch.float16: 0.1}
# An adapter that moves logits by less than this share of the largest (bounds for coarser arithmetic) shows no effect.
LEAST_EFFECT = 1e-5
NUM_PROMPTS, PROMPT_TOKENS, POSITIONS, NEW_TOKENS = 4, 256, 16, 16
# Values of config.json that say how a model is stored or run, not what it computes.
_STORAGE_KEYS = frozenset(
    {"dtype", "torch_dtype", "_name_or_path", "name_or_path", "transformers_version", "use_cache", "architectures"}
)


@dataclass(frozen=True, slots=True)
class Gate:
    """What the models are asked: `prompts` are token ids, `stop_ids` end a text, `pad_id` is any token for padding."""

    prompts: list[list[int]]
    stop_ids: list[int]
    pad_id: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What a model says to a gate's prompts, and what it is.

    Attributes:
        logits: of the last positions of each prompt, `[P, vocabulary]` fp32 on the CPU.
        base_logits: the same with the adapter off; None without an adapter.
        replies: greedy tokens after each prompt; margins: of each of them, how far the second best logit was below, as a
            share of the largest.
        architecture: values of its config.json that decide what it computes, and the embedding's rows.
        is_tied: its head and its embedding are one tensor.
        dtype: of the arithmetic.
    """

    logits: list[Tensor]
    base_logits: list[Tensor] | None
    replies: list[list[int]]
    margins: list[list[float]]
    architecture: dict[str, Any]
    is_tied: bool
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model in memory, the tokenizer and template it was trained with, and what it is asked."""

    model: Any
    tokenizer: Any
    gate: Gate


def fixed_gate(vocab_size: int, *, stop_ids: Sequence[int] = (), pad_id: int | None = None) -> Gate:
    """Returns a gate of fixed token ids, for a model without a run whose held-out prompts could be asked."""
    steps = (37, 101)
    return Gate([[i * step % vocab_size for i in range(16)] for step in steps], list(stop_ids), pad_id or 0)


def observe(model: Any, gate: Gate) -> Observed:
    """Returns what `model`, a transformers model or a peft model around one, says to the gate's prompts."""
    was_training = model.training
    model.eval()
    base, device = base_model(model), next(model.parameters()).device
    try:
        with torch.no_grad():
            logits = logits_of(model, gate)
            base_logits = None
            if hasattr(model, "peft_config"):
                with model.disable_adapter():
                    base_logits = logits_of(model, gate)
            # A reward model scores a text and writes none.
            asked = gate.prompts if base.can_generate() else []
            replies = [
                answer(model, p, device=device, max_new_tokens=NEW_TOKENS, stop_ids=gate.stop_ids, pad_id=gate.pad_id)
                for p in asked
            ]
            margins = [_margins(model, p, reply, device) for p, reply in zip(asked, replies, strict=True)]
    finally:
        model.train(was_training)
    architecture = {key: value for key, value in base.config.to_dict().items() if key not in _STORAGE_KEYS}
    architecture["embedding rows"] = base.get_input_embeddings().weight.shape[0]
    return Observed(logits, base_logits, replies, margins, architecture, is_tied(base), next(base.parameters()).dtype)


def is_tied(base: Any) -> bool:
    """True when the head and the embedding of a transformers model are one tensor."""
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    return head is not None and head.weight.data_ptr() == embedding.weight.data_ptr()


def logits_of(model: nn.Module, gate: Gate) -> list[Tensor]:
    """Returns the logits of the last positions of each prompt, `[P, vocabulary]` fp32 on the CPU."""
    device, found = next(model.parameters()).device, []
    with torch.no_grad():
        for prompt in gate.prompts:
            sign()
            logits: Tensor = model(input_ids=torch.tensor([prompt], device=device), use_cache=False).logits
            found.append(logits[0, -POSITIONS:].float().cpu())
    return found


def _margins(model: nn.Module, prompt: list[int], reply: list[int], device: torch.device) -> list[float]:
    if not reply:
        return []
    ids = torch.tensor([prompt + reply], device=device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    best = logits.topk(2).values
    return ((best[:, 0] - best[:, 1]) / logits.abs().amax(dim=1)).tolist()  # type: ignore[no-any-return]


def check_same(expected: Observed, found: Observed, *, dtype: torch.dtype, what: str) -> dict[str, Any]:
    """Compares a merged or written model with the trained one; returns the figures.

    Args:
        expected: the trained model. found: the other one.
        dtype: of the weights of the other one: the coarser of it and of the arithmetic decides the bound.
        what: names the other one in an error.

    Raises:
        RunFailed: they differ; the first cause that was found.
    """
    check_architecture(expected.architecture, found.architecture, what)
    if expected.is_tied != found.is_tied:
        words = {True: "one tensor", False: "two"}
        raise refused(
            f"{what}: head and embedding are {words[found.is_tied]}, in training they were {words[expected.is_tied]} "
            "(tied weights)"
        )
    bound = max(BOUNDS[dtype], BOUNDS[expected.dtype])
    coarsest = max((dtype, expected.dtype), key=lambda one: BOUNDS[one])
    share = check_effect(expected, found, coarsest, what)
    difference = largest_difference(expected.logits, found.logits)
    if not difference <= bound:
        raise refused(f"{what}: logits differ by {difference:.2g} of the largest, expected at most {bound:g} in {_name(coarsest)}")
    equal = check_replies(expected, found, bound, what)
    return {"bound": bound, "logits": difference, "effect_share": share, "texts": len(found.replies), "texts_equal": equal}


def check_architecture(expected: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    """Raises RunFailed naming the first value of config.json, or the embedding's rows, that is another one."""
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise refused(f"{what}: {key} is {found.get(key)}, of the trained model {expected.get(key)}: another architecture")


def check_effect(expected: Observed, found: Observed, dtype: torch.dtype, what: str) -> float | None:
    """Returns the share of the adapter's effect that `found` has, without an adapter of its own; None without an effect.

    With b, a, m the logits of base, trained and other model: <m - b, a - b> / <a - b, a - b>.

    Raises:
        RunFailed: it is not 1 within the bound of the dtype.
    """
    if expected.base_logits is None:
        return None
    base, trained, other = (torch.cat(rows).double() for rows in (expected.base_logits, expected.logits, found.logits))
    effect = trained - base
    least = LEAST_EFFECT if expected.dtype == torch.float32 else BOUNDS[expected.dtype]
    if effect.abs().max() <= least * trained.abs().max():
        return None
    share = float(((other - base) * effect).sum() / (effect * effect).sum())
    if not abs(share - 1) <= EFFECT_BOUNDS[dtype]:
        cause = ""
        if abs(share) <= EFFECT_BOUNDS[dtype]:
            cause = "; nothing was merged, or all of it was lost to rounding (--dtype float32 keeps it)"
        raise refused(
            f"{what}: has {round(share, 2) + 0.0:.2f} of the adapter's effect, expected 1 within {EFFECT_BOUNDS[dtype]:g} in "
            f"{_name(dtype)} (wrong alpha / rank, another adapter?){cause}"
        )
    return share


def check_replies(expected: Observed, found: Observed, bound: float, what: str) -> int:
    """Returns how many greedy texts are equal, token by token.

    A text may part from the trained model's only at a token whose lead over the next one was within the bound: there
    rounding decides.

    Raises:
        RunFailed: one parts elsewhere.
    """
    equal = 0
    for number, (ours, theirs) in enumerate(zip(expected.replies, found.replies, strict=True), start=1):
        if ours == theirs:
            equal += 1
            continue
        place = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
        if place is None or expected.margins[number - 1][place] > bound:
            at = min(len(ours), len(theirs)) if place is None else place
            raise refused(f"{what}: greedy text {number} of {len(found.replies)} is another one from token {at + 1} on")
    return equal


def tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    """Returns what decides how text becomes tokens and back, long values as hashes."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=True)
    template = tokenizer.chat_template
    return {
        "chat template": None if template is None else _sha256(json.dumps(template, sort_keys=True)),
        "special tokens": {key: str(value) for key, value in sorted(tokenizer.special_tokens_map.items())},
        "special ids": sorted(tokenizer.all_special_ids),
        "vocabulary": _sha256(vocabulary),
    }


def check_tokenizer(expected: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    """Raises RunFailed when the tokenizers' facts differ, naming which."""
    for key, value in expected.items():
        if found[key] == value:
            continue
        if found[key] is None:
            raise refused(f"{what}: the tokenizer has lost its {key}")
        raise refused(f"{what}: the tokenizer's {key} is not the trained one's ({_short(found[key])}, expected {_short(value)})")


def check_folder(
    folder: Path, gate: Gate, expected: Observed, tokenizer: Mapping[str, Any], device: torch.device
) -> tuple[dict[str, Any], Observed]:
    """Loads `folder` as transformers does and compares it with the trained model; returns the figures and what it said.

    Args:
        folder: what was written.
        gate: the prompts.
        expected: the trained model's answers.
        tokenizer: facts of the trained tokenizer.
        device: where to compute.

    Raises:
        ConfigError: it holds nothing that can be loaded.
        RunFailed: it differs.
    """
    from transformers import AutoTokenizer

    what = "the written folder"
    check_tokenizer(tokenizer, tokenizer_facts(AutoTokenizer.from_pretrained(folder, local_files_only=True)), what)
    model = load_written(folder, device)
    stored = next(base_model(model).parameters()).dtype
    found = observe(model.to(expected.dtype), gate)
    figures = check_same(expected, found, dtype=stored, what=what)
    prompts = [{"tokens": len(p), "reply_tokens": len(r), "reply_sha256": _sha256(str(r))} for p, r in zip(gate.prompts, found.replies, strict=False)]
    return {"dtype": _name(stored), "arithmetic": _name(expected.dtype), **figures, "is_tied": found.is_tied, "prompts": prompts}, found


def load_written(folder: Path, device: torch.device) -> Any:
    """Returns the model of a written folder, a reward model too."""
    from transformers import AutoModelForSequenceClassification

    from configs.reward import is_classifier
    from train.models import load_exported

    if not is_classifier(folder):
        return load_exported(folder, device=device)[0]
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto", local_files_only=True).to(device).eval()


def largest_difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Returns the largest difference of two lists of logits, as a share of the first one's largest entry."""
    first, second = torch.cat(list(expected)), torch.cat(list(found))
    return float((first - second).abs().max() / first.abs().max())


def refused(cause: str) -> RunFailed:
    """Returns the error of the gate."""
    return RunFailed(f"export refused: {cause}. Nothing was written")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}.."
