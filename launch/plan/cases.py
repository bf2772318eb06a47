"""Memory that others measured on GPUs, beside what configs/memory.py says of the same model, engine and rows.

Every row of the two tables that are of a kind with what runs here, and single figures of two more pages; nothing was left
out because of its error. `docs/plan.md` shows them, written by benchmarks/plan_table.py. Settings are as near as ours go:

- DeepSpeed there adds gradients up in 2 bytes, which is what ours does with fp16.
- transformers' own loss keeps logits of all tokens: in half precision, in fp32, and the gradient of each. `logits_per_token`
  counts them; here only a chunk lives at a time. The error is given with and without this difference.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from configs.memory import Memory, Setup, estimate, model_of

GIB = 2**30
GIST = "https://gist.github.com/chenyaofo/d4cd6a20ab4b95cb3a49491747e2139a"
LITGPT = "https://github.com/Lightning-AI/litgpt/blob/main/tutorials/resource-tables.md"
TORCHTITAN = "https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3_h100_202412_torchtitan.md"
TORCHTUNE = "https://github.com/pytorch/torchtune/blob/main/README.md"

LLAMA2_7B: dict[str, Any] = {"model_type": "llama", "vocab_size": 32000, "num_key_value_heads": 32}
LLAMA2_13B: dict[str, Any] = {
    **LLAMA2_7B,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
}
LLAMA3_8B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
}
# litgpt adapts the queries' and values' parts of a fused projection.
LITGPT_LORA: dict[str, Any] = {"rank": 8, "target_modules": ["q_proj", "v_proj"]}
# torchtune's 8B_lora: rank 8 on attention's q, v and output and on all three of the MLP.
TORCHTUNE_LORA: dict[str, Any] = {
    "rank": 8,
    "target_modules": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


@dataclass(frozen=True, slots=True)
class Case:
    """One published figure.

    Attributes:
        name: model and GPUs, for the table.
        values: of config.json; lora: arguments of `with_lora`, None: every weight is trained.
        setup: engine, ranks, rows as they were.
        gib: peak of allocated memory that was published, in 2^30 bytes.
        source: the page; what differs from ours: in words.
        keeps_logits: their loss holds logits of all tokens.
    """

    name: str
    values: dict[str, Any]
    setup: Setup
    gib: float
    source: str
    differs: str
    lora: dict[str, Any] | None = None
    keeps_logits: bool = False

    @property
    def adapter(self) -> str:
        return "none" if self.lora is None else "lora"

    @property
    def on_host(self) -> bool:
        return self.setup.offload_optimizer or self.setup.offload_parameters

    def planned(self) -> Memory:
        """Returns what our formula says."""
        model = model_of(self.values, self.lora)
        assert model is not None
        return estimate(model, self.setup)

    def more_logits(self) -> float:
        """Returns the bytes of their logits beyond ours: 2 + 4 bytes each, and as much again for their gradients."""
        if not self.keeps_logits:
            return 0.0
        tokens = self.setup.micro_batch_size * self.setup.sequence_length
        return float(max(0.0, tokens * self.values["vocab_size"] * 12.0 - self.planned().logits.accelerator))

    def error(self, *, same_loss: bool = False) -> float:
        """Returns planned over published, minus 1; with `same_loss` their logits counted."""
        planned = self.planned().total.accelerator + (self.more_logits() if same_loss else 0.0)
        return float(planned / (self.gib * GIB) - 1)


def _setup(engine: str, ranks: int, rows: int, length: int, **more: Any) -> Setup:
    given = {"precision": "bf16", "optimizer": "adamw", "frozen_bytes": 2, **more}
    return Setup(engine=engine, ranks=ranks, micro_batch_size=rows, sequence_length=length, **given)


def _deepspeed(stage: int, rows: int, gib: float, *, full: bool, optimizer: bool = False, parameters: bool = False, steps: str = "") -> Case:
    setup = _setup(
        f"zero{stage}",
        8,
        rows,
        4096,
        precision="fp16",
        recompute="full" if full else "none",
        offload_optimizer=optimizer,
        offload_parameters=parameters,
    )
    return Case(
        f"Llama 7B, 8 x A800, {rows} x 4,096{steps}", LLAMA2_7B, setup, gib, GIST, "transformers' loss; 2-byte sums", keeps_logits=True
    )


def _litgpt(name: str, values: dict[str, Any], rows: int, gib: float) -> Case:
    setup = _setup("ddp", 1, rows, 1304)
    return Case(f"{name}, 1 x A100, {rows} x 1,304", values, setup, gib / (GIB / 1e9), LITGPT, "bf16-true; rows padded to 1,304", LITGPT_LORA, True)


CASES = (
    _deepspeed(2, 1, 44.8, full=False),
    _deepspeed(2, 1, 23.5, full=True),
    _deepspeed(2, 1, 16.9, full=True, optimizer=True),
    _deepspeed(2, 4, 38.6, full=True),
    _deepspeed(3, 2, 75.7, full=False),
    _deepspeed(3, 2, 20.4, full=True),
    _deepspeed(3, 2, 9.4, full=True, optimizer=True),
    _deepspeed(3, 4, 7.9, full=True, optimizer=True, parameters=True),
    _deepspeed(3, 8, 39.1, full=True),
    _deepspeed(3, 8, 63.9, full=True, steps=", 2 micro-batches"),
    _litgpt("Llama 2 7B", LLAMA2_7B, 1, 21.30),
    _litgpt("Llama 2 7B", LLAMA2_7B, 2, 29.07),
    _litgpt("Llama 2 13B", LLAMA2_13B, 1, 38.12),
    Case(
        "Llama 3.1 8B, 8 x H100, 2 x 8,192", LLAMA3_8B, _setup("fsdp2", 8, 2, 8192, recompute="selective"), 82.4, TORCHTITAN,
        "selective recomputation saves other results; all logits", keeps_logits=True,
    ),
    Case(
        "Llama 3.1 8B, 128 x H100, 2 x 8,192", LLAMA3_8B, _setup("fsdp2", 128, 2, 8192, recompute="selective"), 67.0, TORCHTITAN,
        "selective recomputation saves other results; all logits", keeps_logits=True,
    ),
    Case(
        "Llama 3.1 8B, 1 x A6000, 2 x 2,048", LLAMA3_8B, _setup("ddp", 1, 2, 2048), 30.3, TORCHTUNE,
        "bf16 throughout, torch.compile; logits in chunks; recomputation not stated", TORCHTUNE_LORA,
    ),
)


@functools.cache
def memory_band(engine: str, adapter: str, *, on_host: bool = False) -> tuple[float | None, str]:
    """Returns the root mean square of the relative errors of an engine's compared cases, and what they are.

    (None, "") where nothing was compared.
    """
    errors = [
        case.error()
        for case in CASES
        if (case.setup.engine, case.adapter, case.on_host) == (engine, adapter, on_host)
    ]
    if not errors:
        return None, ""
    typical = math.sqrt(sum(error**2 for error in errors) / len(errors))
    largest = max(abs(error) for error in errors)
    figures = "1 published figure" if len(errors) == 1 else f"{len(errors)} published figures"
    return typical, f"docs/plan.md: {figures}, error {100 * typical:.0f} % (root mean square), {100 * largest:.0f} % at most"
