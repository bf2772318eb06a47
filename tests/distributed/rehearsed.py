"""A rank on which memory runs out while the micro-batch is looked for: what its engine does after that."""

from __future__ import annotations

from typing import Any

import torch

LENGTH, VOCABULARY, FITS = 16, 64, 2
ARCH = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}


def build(name: str, context: Any) -> tuple[Any, Any, Any]:
    """Returns engine, prepared module and scores of a small model."""
    from configs.schema import EngineSection, ModelSection, OptimizerSection, TrainingSection
    from train import models
    from train.attention import VARLEN_CPU
    from train.engines import build_engine
    from train.optimizer import build_optimizer
    from train.scores import Scores

    engine = build_engine(EngineSection(name=name, backend="gloo"), TrainingSection(precision="fp32"), context)
    section = ModelSection(arch=ARCH, random_weights=True)
    model = models.load_model(section, dtype=torch.float32, attention_name=VARLEN_CPU, device=context.device, seed=1)
    scores = Scores(model, precision="fp32")
    return engine, engine.prepare(scores, lambda named: build_optimizer(OptimizerSection(name="adamw"), named, 1e-3)), scores


def retried(name: str) -> dict[str, Any]:
    """Returns the micro-batch found, and three steps after that beside three of a run in which all went well.

    On rank 1 memory runs out in the backward pass of more than FITS rows, on rank 0 never.
    """
    from train import distributed
    from train.objectives import Sft
    from train.rehearsal import largest_micro_batch, worst_batch
    from train.step import train_step

    context = distributed.start("gloo", "cpu", needs_group=True)

    def steps(engine: Any, module: Any) -> list[list[float]]:
        window = [worst_batch(FITS, LENGTH, VOCABULARY, context.device)]
        outcomes = [train_step(engine, module, Sft(), window, stop=False) for _ in range(3)]
        return [[outcome.loss, outcome.grad_norm] for outcome in outcomes]

    def fail(module: Any, before: Any, after: Any) -> None:
        # A sharded engine exchanges inside the backward pass: there only ranks that fail alike can try again.
        if (context.rank == 1 or name == "fsdp2") and after[0].shape[1] > FITS * LENGTH:
            raise torch.OutOfMemoryError("planted")

    try:
        plain = steps(*build(name, context)[:2])
        engine, module, scores = build(name, context)
        with scores.model.model.layers[0].register_full_backward_hook(fail):
            rows = largest_micro_batch(
                engine, module, Sft(), 8, lambda rows: worst_batch(rows, LENGTH, VOCABULARY, context.device)
            )
        return {"rows": rows, "steps": steps(engine, module), "plain": plain}
    finally:
        distributed.shutdown()
