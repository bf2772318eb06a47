"""`--explain FIGURE`: the formula of a figure with the numbers of every column put in."""

from __future__ import annotations

from configs.model_shapes import numel
from launch.plan.choice import Fit

# What each engine holds, in words: P numbers of the model, T trained ones, N ranks, w bytes of a number that is computed with.
_PARAMETERS = {
    "ddp": "T x 4 + frozen x their bytes",
    "zero1": "P x w",
    "zero2": "P x w",
    "zero3": "P x w / N + small tensors whole",
    "fsdp2": "(T x 4 + frozen x their bytes) / N",
}
_GRADIENTS = {
    "ddp": "T x 4",
    "zero1": "T x (w + bytes of sums)",
    "zero2": "T x bytes of sums / N",
    "zero3": "T x bytes of sums / N",
    "fsdp2": "T x 4 / N",
}
_OPTIMIZER = {
    "ddp": "T x 2 moments x 4",
    "zero1": "T x (master + 2 moments) x 4 / N",
    "zero2": "T x (master + 2 moments) x 4 / N",
    "zero3": "T x (master + 2 moments) x 4 / N",
    "fsdp2": "T x 2 moments x 4 / N",
}
_BUFFERS = {
    "ddp": "half-precision copies of the weights that autocast makes, and one gradient on its way",
    "zero1": "buckets of gradients, one flattened group, one gradient on its way",
    "zero2": "2 buckets of 500 M numbers and what is reduced of them, one gradient on its way",
    "zero3": "bucket of 500 M numbers twice, gathered weights up to 1 B numbers, one gradient on its way",
    "fsdp2": "embeddings, head and two layers gathered, one layer's gradients in both types",
}


def memory_formula(fit: Fit, part: str) -> str:
    """Returns the formula of a part of memory, with this column's numbers."""
    setup = fit.setup
    trained, everything = numel(fit.model.parameters, trained=True), numel(fit.model.parameters)
    numbers = f"P = {everything:,}, T = {trained:,}, N = {setup.sharers}, w = {setup.compute_bytes}"
    tokens = f"{setup.micro_batch_size} rows x {setup.sequence_length:,} tokens"
    amount = getattr(fit.memory, part)
    value = f" = {amount.accelerator:,} bytes" + (f" and {amount.host:,} on the host" if amount.host else "")
    texts = {
        "parameters": f"{_PARAMETERS[setup.engine]}; {numbers}{value}",
        "gradients": f"{_GRADIENTS[setup.engine]}; {numbers}{value}",
        "optimizer": f"{_OPTIMIZER[setup.engine]}; {numbers}{value}",
        "activations": (
            f"{tokens} x {amount.accelerator / max(1, setup.micro_batch_size * setup.sequence_length):,.0f} bytes that autograd "
            f"keeps per token (gradient_checkpointing={setup.recompute}; arXiv 2205.05198, counted operation by operation){value}"
        ),
        "logits": f"no words to project to: hidden states of {tokens}, a number each{value}"
        if fit.model.is_reward
        else f"three fp32 matrices of a chunk of at most 256 MiB, and the hidden states of {tokens}{value}",
        "buffers": f"{_BUFFERS[setup.engine]}{value}",
    }
    return texts[part]
