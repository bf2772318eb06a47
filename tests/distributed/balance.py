"""Three steps of a small DeepSeek-V3 with the balance loss, by every engine on two ranks.

    python -m tests.distributed.balance

Prints one line of JSON: for each arrangement the curves of loss, balance, gradient norm and load.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import EngineSection, OptimizerSection, TrainingSection
from data_pipelines.collate import collate
from data_pipelines.index import Store
from data_pipelines.order import rank_slice
from tests.small_store import small_store
from train.prove.forked import RanksFailed, run_ranks

STEPS = 3
ROWS = 4
SHAPE = {
    "vocab_size": 500,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
# (engine, ranks, rows at once, gradient checkpointing). Three ranks do not divide four rows: two of them are empty.
ARRANGEMENTS: dict[str, tuple[str, int, int, str]] = {
    "one process": ("ddp", 1, 4, "none"),
    "accumulation": ("ddp", 1, 1, "full"),
    "ddp x2": ("ddp", 2, 1, "none"),
    "ddp x3": ("ddp", 3, 1, "full"),
    "zero2 x2": ("zero2", 2, 1, "full"),
    "zero3 x2": ("zero3", 2, 1, "none"),
    "zero3 x2, checkpointing": ("zero3", 2, 2, "full"),
    "fsdp2 x2": ("fsdp2", 2, 1, "none"),
    "fsdp2 x2, checkpointing": ("fsdp2", 2, 2, "full"),
}


def train(folder: str, name: str, micro: int, what: str, weight: float) -> dict[str, list[float]]:
    """Makes three updates on this rank and returns what they were."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from train import adapters, attention, distributed
    from train.engines import build_engine
    from train.objectives.sft import Sft
    from train.optimizer import build_optimizer
    from train.router import Balanced, Router, routers
    from train.scores import Scores
    from train.step import train_step

    context = distributed.start("gloo", "cpu")
    attention.register()
    torch.manual_seed(0)
    config = AutoConfig.for_model("deepseek_v3", **SHAPE)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.VARLEN_CPU).train()
    for router in routers(model):
        torch.nn.init.normal_(router.weight, std=0.5)
    adapters.recompute_activations(model, what)
    section = EngineSection(name=name, processes=context.world_size, backend="gloo")
    training = TrainingSection(precision="fp32", micro_batch_size=micro, gradient_checkpointing=what, max_grad_norm=0.0)
    # After the model: once DeepSpeed is set up for stage 3, transformers draws random weights in another order.
    engine = build_engine(section, training, context)
    router = Router(model, weight=weight)
    scores = Scores(model, precision="fp32", router=router)
    sgd = OptimizerSection(name="sgd", lr=0.1)
    module = engine.prepare(scores, lambda named: build_optimizer(sgd, named, 0.1))
    objective = Balanced(Sft(), router)
    store = Store(Path(folder))
    curve: dict[str, list[float]] = {"loss": [], "balance": [], "grad_norm": [], "router_load_max": [], "router_load_min": []}
    for step in range(STEPS):
        rows = (np.arange(ROWS) + step) % store.num_rows
        parts = rank_slice(rows, engine.dims.dp_rank, engine.dims.dp_size, micro)
        window = [collate(store, part, 0) for part in parts]
        outcome = train_step(engine, module, objective, window, stop=False)
        figures = {**outcome.terms, "grad_norm": outcome.grad_norm, **router.figures()}
        for key, value in figures.items():
            curve[key].append(value)
    distributed.shutdown()
    return curve


def main() -> None:
    """Runs everything and prints it."""
    import accelerate  # noqa: F401  # imported once, before the ranks are forked
    import deepspeed  # noqa: F401
    import transformers.models.deepseek_v3.modeling_deepseek_v3  # noqa: F401

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        small_store(folder, [9, 7, 11, 20, 3, 8, 5, 30, 14, 6, 26, 4])
        for label, (engine, world, micro, what) in ARRANGEMENTS.items():
            try:
                found[label] = run_ranks(world, train, str(folder), engine, micro, what, 0.05, timeout_s=100)[0]
            except RanksFailed as error:
                found[label] = {"error": str(error)}
        # Weight 0 would leave the term out of the step; this one leaves it without effect.
        found["without the term"] = run_ranks(1, train, str(folder), "ddp", 4, "none", 1e-12)[0]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
